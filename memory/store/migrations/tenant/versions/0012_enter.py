"""Who holds a key, and what answers about their collections depend on, in one go: every search asks both."""

from alembic import op

revision = "tenant_0012"
down_revision = "tenant_0011"


def upgrade() -> None:
    # The tenant is set for the rest of the transaction, so the second question is asked under the policies of whoever
    # holds the key; an unknown key ends before it.
    op.execute(
        """
        create function enter(key_hash bytea, wanted text)
        returns table (tenant_id uuid, key_id uuid, label text, read_only boolean, is_main boolean,
                       tenant_is_admin boolean, tier text, has_grants boolean,
                       collection_id uuid, version bigint, next_expiry timestamptz)
        language plpgsql set search_path from current set plan_cache_mode = force_generic_plan as $$
        #variable_conflict use_column
        declare
            who record;
        begin
            select * into who from find_key(key_hash);
            if not found then
                return;
            end if;
            perform set_config('app.tenant', who.tenant_id::text, true);
            return query
            select who.tenant_id, who.key_id, who.label, who.read_only, who.is_main, who.tenant_is_admin, who.tier,
                   who.has_grants, s.*
            from (values (1)) as always(once)
            left join (
                select found.*
                from collections c cross join lateral states_of_collection(c.name) as found
                where wanted is null or c.name = wanted
            ) as s on true
            order by s.collection_id;
        end $$
        """
    )
