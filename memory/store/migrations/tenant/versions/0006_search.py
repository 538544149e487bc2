"""Words as they are written besides their stems, phrases by index, and indexes for neighbours and categories."""

from alembic import op

from memory.store.migrations.access import TENANT, give_to_search_reader

revision = "tenant_0006"
down_revision = "tenant_0005"


def upgrade() -> None:
    # Neither begins with the tenant: the planner would take it for a primary key where its statistics are old.
    # The order of a sequence: rows without a position stand behind those that have one.
    op.execute("drop index memories_in_sequence")
    op.execute(
        """
        create index memories_in_sequence on memories (collection_id, sequence,
            coalesce(container_tag, ''), coalesce(position, 2147483647), created_at, id)
        where sequence is not null
        """
    )
    op.execute("create index memories_by_category on memories (collection_id, category)")
    _terms()
    _phrases()


def _terms() -> None:
    # Stop words, of which stemming leaves nothing, are kept as they are: they are names elsewhere, and words of other
    # languages. A name is kept whole where its stem is another's, too. The body's names are bound when it is made, so
    # that no search path has to be set for each memory.
    op.execute("drop function bm25_weights(tsvector, text[], double precision)")
    op.execute(
        """
        create function terms_of(content text, exact text[], exact_weight double precision, named text[],
                                 name_weight double precision)
        returns table (tsv tsvector, lexical sparsevec)
        language sql immutable strict parallel safe
        begin atomic
            with stemmed as materialized (
                select to_tsvector('english', content) as tsv
            ), whole as materialized (
                select term, exact_weight as weight from unnest(exact) as term
                union all
                select '=' || lexeme, exact_weight from unnest(to_tsvector('simple', content))
                where ts_lexize('english_stem', lexeme) = '{}'
                union all
                select '=' || name, name_weight from unnest(named) as name
                where ts_lexize('english_stem', name) not in ('{}', array[name])
            ), weighed as (
                select lexeme,
                       frequency * 2.2 / (frequency + 1.2 * (0.25 + 0.75 * sum(frequency) over () / 50)) as weight
                from (
                    select lexeme, greatest(cardinality(positions), 1)::double precision as frequency
                    from stemmed, unnest(stemmed.tsv)
                ) as frequencies
                union all
                select term, weight from whole
            ), summed as (
                select lexeme_dimension(lexeme) as dimension, sum(weight)::real as weight from weighed group by 1
            )
            select stemmed.tsv || array_to_tsvector(coalesce((select array_agg(term) from whole), '{}')),
                   (select ('{' || coalesce(string_agg(dimension || ':' || weight, ','), '') || '}/1048576')::sparsevec
                    from summed where weight <> 0)
            from stemmed;
        end
        """
    )


def _phrases() -> None:
    op.execute(
        f"""
        create function find_by_terms(in_collections uuid[], wanted tsquery, most integer)
        returns table (memory_id uuid)
        language plpgsql stable security definer set search_path from current
        set plan_cache_mode = force_custom_plan as $$
        #variable_conflict use_column
        begin
            return query
            select t.memory_id
            from memory_terms t
            where t.tenant_id = {TENANT}
              and t.tsv @@ wanted
              and t.collection_id = any (in_collections)
            limit most;
        end $$
        """
    )
    give_to_search_reader("find_by_terms(uuid[], tsquery, integer)")
