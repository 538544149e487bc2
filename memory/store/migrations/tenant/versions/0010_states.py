"""What an answer about one collection depends on, with a plan that is made once a connection: every search asks."""

from alembic import op

revision = "tenant_0010"
down_revision = "tenant_0009"


def upgrade() -> None:
    # Connections plan each statement anew, because tenants differ in size; here that would take longer than the answer.
    op.execute(
        """
        create function states_of_collection(wanted text)
        returns table (collection_id uuid, version bigint, next_expiry timestamptz)
        language sql stable set search_path from current set plan_cache_mode = force_generic_plan as $$
            select c.id,
                   coalesce((select sum(v.version) from collection_versions v where v.collection_id = c.id), 0)::bigint,
                   (select min(m.expires_at) from memories m where m.collection_id = c.id and m.expires_at > now())
            from collections c where c.name = wanted
        $$
        """
    )
