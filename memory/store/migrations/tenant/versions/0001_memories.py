"""Everything that lies next to the memories: collections, memories, vectors, terms, statistics, drops."""

from alembic import op

from memory.store.migrations.access import TENANT, give_to_search_reader, isolate

revision = "tenant_0001"
down_revision = None

TABLES = {
    "collections": """
        tenant_id uuid not null,
        id uuid not null,
        name text not null,
        description text,
        metadata jsonb not null default '{}',
        created_at timestamptz not null default now(),
        updated_at timestamptz not null default now(),
        primary key (tenant_id, id),
        unique (tenant_id, name)
    """,
    "memories": """
        tenant_id uuid not null,
        id uuid not null,
        collection_id uuid not null,
        text text not null,
        importance double precision not null,
        category text not null,
        source text not null,
        metadata jsonb not null default '{}',
        container_tag text,
        type text,
        is_latest boolean not null default true,
        version integer not null default 1,
        sequence text,
        position integer,
        external_id text,
        valid_from timestamptz not null,
        valid_to timestamptz,
        superseded_by uuid,
        superseded_reason text,
        created_by uuid,
        created_by_label text,
        pinned boolean not null default false,
        archived boolean not null default false,
        expires_at timestamptz,
        created_at timestamptz not null,
        updated_at timestamptz not null,
        primary key (tenant_id, id),
        foreign key (tenant_id, collection_id) references collections (tenant_id, id) on delete cascade
    """,
    "memory_versions": """
        tenant_id uuid not null,
        memory_id uuid not null,
        version integer not null,
        text text not null,
        valid_from timestamptz not null,
        valid_to timestamptz not null,
        reason text,
        changed_by uuid,
        changed_by_label text,
        primary key (tenant_id, memory_id, version),
        foreign key (tenant_id, memory_id) references memories (tenant_id, id) on delete cascade
    """,
    # No fixed dimension: each model has its own partial expression index.
    "memory_vectors": """
        tenant_id uuid not null,
        memory_id uuid not null,
        model_id integer not null references embedding_models (id),
        collection_id uuid not null,
        embedding halfvec not null,
        segment integer,
        primary key (tenant_id, memory_id, model_id),
        foreign key (tenant_id, memory_id) references memories (tenant_id, id) on delete cascade
    """,
    "memory_terms": """
        tenant_id uuid not null,
        memory_id uuid not null,
        collection_id uuid not null,
        tsv tsvector not null,
        lexical sparsevec(1048576) not null,
        primary key (tenant_id, memory_id),
        foreign key (tenant_id, memory_id) references memories (tenant_id, id) on delete cascade
    """,
    "collection_statistics": """
        tenant_id uuid not null,
        collection_id uuid not null,
        documents integer not null,
        sampled integer not null,
        refreshed_at timestamptz not null,
        primary key (tenant_id, collection_id),
        foreign key (tenant_id, collection_id) references collections (tenant_id, id) on delete cascade
    """,
    "collection_terms": """
        tenant_id uuid not null,
        collection_id uuid not null,
        lexeme text not null,
        documents integer not null,
        primary key (tenant_id, collection_id, lexeme),
        foreign key (tenant_id, collection_id) references collections (tenant_id, id) on delete cascade
    """,
    "batches": """
        tenant_id uuid not null,
        id uuid not null,
        collection_id uuid,
        collection text not null,
        container_tag text,
        category text not null,
        importance double precision not null,
        source text not null,
        metadata jsonb not null default '{}',
        created_by uuid,
        created_by_label text,
        created_at timestamptz not null default now(),
        touched_at timestamptz not null default now(),
        completed_at timestamptz,
        primary key (tenant_id, id),
        foreign key (tenant_id, collection_id) references collections (tenant_id, id)
            on delete set null (collection_id)
    """,
    # `key` is null once the object is gone with the last memory that carried it; the row still tells of the batch.
    "files": """
        tenant_id uuid not null,
        id uuid not null,
        batch_id uuid,
        ordinal integer not null default 0,
        filename text not null,
        content_type text not null,
        size bigint not null,
        sha256 bytea not null,
        key text,
        status text not null check (status in ('queued', 'processing', 'done', 'failed')),
        chunks integer not null default 0,
        note text,
        error text,
        created_at timestamptz not null default now(),
        updated_at timestamptz not null default now(),
        primary key (tenant_id, id),
        foreign key (tenant_id, batch_id) references batches (tenant_id, id) on delete set null (batch_id)
    """,
    "memory_files": """
        tenant_id uuid not null,
        memory_id uuid not null,
        file_id uuid not null,
        position integer not null,
        primary key (tenant_id, memory_id, file_id),
        foreign key (tenant_id, memory_id) references memories (tenant_id, id) on delete cascade,
        foreign key (tenant_id, file_id) references files (tenant_id, id)
    """,
}

# None of these begins with the tenant, as the primary keys do: the planner would take them for equal to a primary key
# where its statistics are old, and look up one memory by reading all of its tenant's entries.
INDEXES = (
    "memories_listed on memories (collection_id, pinned desc, created_at desc, id desc)",
    "memories_tagged on memories (collection_id, container_tag) where container_tag is not null",
    "memories_in_sequence on memories (collection_id, sequence, position) where sequence is not null",
    "memories_expiring on memories (expires_at) where expires_at is not null",
    "memories_metadata on memories using gin (metadata jsonb_path_ops)",
    "memory_vectors_scanned on memory_vectors (collection_id, model_id)",
    "memory_terms_collection on memory_terms (collection_id)",
    "memory_terms_tsv on memory_terms using gin (tsv)",
    "batches_open on batches (touched_at) where completed_at is null",
    "files_of_batch on files (batch_id, ordinal)",
    "memory_files_of_file on memory_files (file_id, tenant_id, memory_id)",
)

# BM25 with k1 1.2 and b 0.75 around a fixed length of 50 lexemes, so that a memory's weights depend on itself alone.
# A lexeme's dimension is a hash that is the same in every process and version; two that share one add up.
FUNCTIONS = (
    """
    create function lexeme_dimension(lexeme text) returns bigint language sql immutable strict parallel safe as $$
        select 1 + ('x' || left(md5(lexeme), 8))::bit(32)::bigint % 1048576
    $$
    """,
    """
    create function lexical_weights(lexemes text[], weights double precision[]) returns sparsevec
    language sql immutable strict parallel safe set search_path from current as $$
        select ('{' || coalesce(string_agg(dimension || ':' || weight, ','), '') || '}/1048576')::sparsevec
        from (
            select lexeme_dimension(lexeme) as dimension, sum(weight)::real as weight
            from unnest(lexemes, weights) as given (lexeme, weight)
            group by 1
        ) as summed
        where weight <> 0
    $$
    """,
    """
    create function bm25_weights(stemmed tsvector, exact text[], exact_weight double precision) returns sparsevec
    language sql immutable strict parallel safe set search_path from current as $$
        with frequencies as (
            select lexeme, greatest(cardinality(positions), 1)::double precision as frequency from unnest(stemmed)
        ), weighed as (
            select lexeme, frequency * 2.2 / (frequency + 1.2 * (0.25 + 0.75 * sum(frequency) over () / 50)) as weight
            from frequencies
            union all
            select term, exact_weight from unnest(exact) as term
        )
        select lexical_weights(coalesce(array_agg(lexeme), '{}'), coalesce(array_agg(weight), '{}')) from weighed
    $$
    """,
)

SEARCH_FUNCTIONS = {
    "search_terms(tsquery, sparsevec, uuid[], uuid[], integer)": f"""
        create function search_terms(wanted tsquery, weights sparsevec, in_collections uuid[], allowed_ids uuid[],
                                     most integer)
        returns table (memory_id uuid, bm25 double precision)
        language plpgsql stable rows 200 security definer set search_path from current
        set plan_cache_mode = force_custom_plan as $$
        #variable_conflict use_column
        begin
            return query
            select t.memory_id, -(t.lexical <#> weights)
            from memory_terms t
            where t.tenant_id = {TENANT}
              and t.tsv @@ wanted
              and t.collection_id = any (in_collections)
              and (allowed_ids is null or t.memory_id = any (allowed_ids))
            order by t.lexical <#> weights, t.memory_id
            limit most;
        end $$
    """,
    "count_terms(tsquery[], uuid[])": f"""
        create function count_terms(wanted tsquery[], in_collections uuid[])
        returns table (ordinal bigint, documents bigint)
        language plpgsql stable security definer set search_path from current
        set plan_cache_mode = force_custom_plan as $$
        #variable_conflict use_column
        declare
            number bigint := 0;
            one tsquery;
        begin
            foreach one in array wanted loop
                number := number + 1;
                return query
                select number, count(*)
                from memory_terms t
                where t.tenant_id = {TENANT} and t.tsv @@ one and t.collection_id = any (in_collections);
            end loop;
        end $$
    """,
    "find_by_metadata(uuid[], jsonb, integer)": f"""
        create function find_by_metadata(in_collections uuid[], contained jsonb, most integer)
        returns table (memory_id uuid)
        language plpgsql stable security definer set search_path from current
        set plan_cache_mode = force_custom_plan as $$
        #variable_conflict use_column
        begin
            return query
            select m.id
            from memories m
            where m.tenant_id = {TENANT}
              and m.metadata @> contained
              and m.collection_id = any (in_collections)
            limit most;
        end $$
    """,
}


def upgrade() -> None:
    op.execute(
        """
        create table embedding_models (
            id integer generated always as identity primary key,
            name text not null unique,
            dimensions integer not null check (dimensions > 0),
            is_current boolean not null
        )
        """
    )
    op.execute("create unique index embedding_models_current on embedding_models (is_current) where is_current")
    # Names and sizes of models belong to no tenant: the app reads them, only the owner writes them.
    op.execute("alter table embedding_models enable row level security")
    op.execute("alter table embedding_models force row level security")
    op.execute("create policy everyone on embedding_models for select using (true)")
    op.execute("create policy upkeep on embedding_models to current_user using (true) with check (true)")
    op.execute("grant select on embedding_models to rememberos_app")
    for table, columns in TABLES.items():
        op.execute(f"create table {table} ({columns})")
        isolate(table)
    for index in INDEXES:
        op.execute(f"create index {index}")
    op.execute(
        """
        create unique index memories_external_id on memories (tenant_id, collection_id, container_tag, external_id)
        nulls not distinct where external_id is not null and is_latest
        """
    )
    for function in FUNCTIONS:
        op.execute(function)
    _let_search_reader_read()
    for signature, function in SEARCH_FUNCTIONS.items():
        op.execute(function)
        give_to_search_reader(signature)
    _sweep()


def _let_search_reader_read() -> None:
    # `@@` and `@>` are not leakproof, so under a tenant's policy their indexes lie idle; this role's own policy frees
    # them, and its functions take the tenant from the transaction, never from an argument.
    op.execute("create policy search on memory_terms for select to search_reader using (true)")
    op.execute("grant select on memory_terms to search_reader")
    op.execute("create policy search on memories for select to search_reader using (true)")
    op.execute("grant select (tenant_id, id, collection_id, metadata) on memories to search_reader")


def _sweep() -> None:
    op.execute(
        """
        create function stalled_batches(untouched_since timestamptz, most integer)
        returns table (tenant_id uuid, batch_id uuid)
        language sql stable security definer set search_path from current as $$
            select b.tenant_id, b.id from batches b
            where b.completed_at is null and b.touched_at < untouched_since
            order by b.touched_at
            limit most
        $$
        """
    )
    op.execute("revoke all on function stalled_batches from public")
    op.execute("grant execute on function stalled_batches to rememberos_app")
