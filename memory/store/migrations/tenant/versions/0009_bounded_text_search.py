"""Text search scores a bounded number of memories, however many hold a word."""

from alembic import op

from memory.store.migrations.access import TENANT, give_to_search_reader

revision = "tenant_0009"
down_revision = "tenant_0008"


def upgrade() -> None:
    # Its owner alone may drop it.
    op.execute("set local role search_reader")
    op.execute("drop function search_terms(tsquery, sparsevec, uuid[], uuid[], integer)")
    op.execute("reset role")
    op.execute(
        f"""
        create function search_terms(wanted tsquery, weights sparsevec, in_collections uuid[], allowed_ids uuid[],
                                     most integer)
        returns table (memory_id uuid, bm25 double precision)
        language plpgsql stable rows 200 security definer set search_path from current
        set plan_cache_mode = force_custom_plan as $$
        #variable_conflict use_column
        begin
            return query
            select t.memory_id, -t.distance
            from (
                select memory_id, lexical <#> weights as distance
                from memory_terms
                where tenant_id = {TENANT}
                  and tsv @@ wanted
                  and collection_id = any (in_collections)
                  and (allowed_ids is null or memory_id = any (allowed_ids))
                limit greatest(most, 6000)
            ) t
            order by t.distance, t.memory_id
            limit most;
        end $$
        """
    )
    give_to_search_reader("search_terms(tsquery, sparsevec, uuid[], uuid[], integer)")
