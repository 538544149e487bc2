"""Curation: runs of dedup and archive-stale with what each changed, and the policies that start them."""

from alembic import op

from memory.store.migrations.access import isolate

revision = "tenant_0005"
down_revision = "tenant_0004"

TABLES = {
    # A run outlives its collection, so that whoever asks learns what became of it.
    "curation_runs": """
        tenant_id uuid not null,
        id uuid not null,
        kind text not null check (kind in ('dedup', 'archive_stale')),
        state text not null check (state in ('queued', 'running', 'done', 'failed')),
        collection_id uuid,
        collection text not null,
        threshold double precision,
        older_than_days integer,
        stale_before timestamptz,
        scanned integer not null default 0,
        scheduled boolean not null,
        error text,
        created_by uuid,
        created_by_label text,
        ip_hash text,
        created_at timestamptz not null default now(),
        touched_at timestamptz not null default now(),
        ended_at timestamptz,
        primary key (tenant_id, id),
        foreign key (tenant_id, collection_id) references collections (tenant_id, id)
            on delete set null (collection_id)
    """,
    # Ids alone: what was deleted must not live on here.
    "curation_items": """
        tenant_id uuid not null,
        run_id uuid not null,
        memory_id uuid not null,
        keeper_id uuid,
        similarity double precision,
        state text not null check (state in ('pending', 'done', 'skipped')),
        primary key (tenant_id, run_id, memory_id),
        foreign key (tenant_id, run_id) references curation_runs (tenant_id, id) on delete cascade
    """,
    "curation_policies": """
        tenant_id uuid not null,
        collection_id uuid not null,
        dedup_threshold double precision,
        stale_days integer,
        interval_hours integer,
        next_run_at timestamptz,
        primary key (tenant_id, collection_id),
        foreign key (tenant_id, collection_id) references collections (tenant_id, id) on delete cascade
    """,
}

INDEXES = (
    "curation_runs_open on curation_runs (touched_at) where ended_at is null",
    "curation_runs_of_collection on curation_runs (tenant_id, collection_id, created_at)",
    "curation_items_pending on curation_items (tenant_id, run_id, keeper_id) where state = 'pending'",
    "curation_policies_due on curation_policies (next_run_at) where next_run_at is not null",
    # Behind `archive-stale` and `health`: what is archived leaves it, so that each batch begins where the last ended.
    "memories_aging on memories (tenant_id, collection_id, updated_at, id) "
    "where is_latest and not archived and not pinned",
    "memories_superseded on memories (tenant_id, collection_id, valid_to) where superseded_by is not null",
)

# Times in, ids out.
FUNCTIONS = {
    "due_curation": """
        create function due_curation(at timestamptz, most integer)
        returns table (tenant_id uuid, collection_id uuid)
        language sql stable security definer set search_path from current as $$
            select p.tenant_id, p.collection_id from curation_policies p
            where p.next_run_at <= at
            order by p.next_run_at
            limit most
        $$
    """,
    "stalled_curation": """
        create function stalled_curation(untouched_since timestamptz, most integer)
        returns table (tenant_id uuid, run_id uuid, kind text)
        language sql stable security definer set search_path from current as $$
            select r.tenant_id, r.id, r.kind from curation_runs r
            where r.ended_at is null and r.touched_at < untouched_since
            order by r.touched_at
            limit most
        $$
    """,
}


def upgrade() -> None:
    for table, columns in TABLES.items():
        op.execute(f"create table {table} ({columns})")
        isolate(table)
    for index in INDEXES:
        op.execute(f"create index {index}")
    for name, function in FUNCTIONS.items():
        op.execute(function)
        op.execute(f"revoke all on function {name} from public")
        op.execute(f"grant execute on function {name} to rememberos_app")
