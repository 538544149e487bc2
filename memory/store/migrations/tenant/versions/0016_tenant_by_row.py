"""Whoever looks by what memories hold looks at the tenant row by row: read from an index, a million rows of it are
marked for every search, only to be met with the few that hold a word."""

from alembic import op

from memory.store.migrations.access import TENANT, give_to_search_reader

revision = "tenant_0016"
down_revision = "tenant_0015"

# No index answers a condition in this form. The collection stays one that an index may answer: it is what narrows the
# words of a small tenant among those of large ones.
_TENANT = f"(tenant_id = {TENANT}) is true"
_FUNCTIONS = {
    "search_terms(wanted tsquery, weights sparsevec, in_collections uuid[], allowed_ids uuid[], most integer)": (
        "memory_id uuid, bm25 double precision",
        f"""
            if allowed_ids is null then
                return query
                select t.memory_id, -t.distance
                from (
                    select memory_id, lexical <#> weights as distance
                    from memory_terms
                    where {_TENANT} and tsv @@ wanted and collection_id = any (in_collections)
                    limit greatest(most, 6000)
                ) t
                order by t.distance, t.memory_id
                limit most;
            else
                return query
                select t.memory_id, -t.distance
                from (
                    select memory_id, lexical <#> weights as distance
                    from memory_terms
                    where tenant_id = {TENANT} and memory_id = any (allowed_ids)
                      and tsv @@ wanted and collection_id = any (in_collections)
                    limit greatest(most, 6000)
                ) t
                order by t.distance, t.memory_id
                limit most;
            end if;
        """,
    ),
    "find_by_terms(in_collections uuid[], wanted tsquery, most integer)": (
        "memory_id uuid",
        f"""
            return query
            select memory_id from memory_terms
            where {_TENANT} and tsv @@ wanted and collection_id = any (in_collections)
            limit most;
        """,
    ),
    "find_by_metadata(in_collections uuid[], contained jsonb, most integer)": (
        "memory_id uuid",
        f"""
            return query
            select id from memories
            where {_TENANT} and metadata @> contained and collection_id = any (in_collections)
            limit most;
        """,
    ),
}


def upgrade() -> None:
    for header, (columns, body) in _FUNCTIONS.items():
        name, _, parameters = header.rstrip(")").partition("(")
        signature = f"{name}({', '.join(parameter.split()[1] for parameter in parameters.split(', '))})"
        # Its owner alone may drop it.
        op.execute("set local role search_reader")
        op.execute(f"drop function {signature}")
        op.execute("reset role")
        op.execute(
            f"""
            create function {header}
            returns table ({columns})
            language plpgsql stable rows 200 security definer set search_path from current
            set plan_cache_mode = force_custom_plan as $$
            #variable_conflict use_column
            begin
                {body}
            end $$
            """
        )
        give_to_search_reader(signature)
