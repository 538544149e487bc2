"""What a change leaves behind besides itself: the version that caches obey, and the audit log."""

from alembic import op

from memory.store.migrations.access import isolate

revision = "tenant_0002"
down_revision = "tenant_0001"


def upgrade() -> None:
    # A collection's version is the sum of its shards: writers of one collection seldom wait for the same row.
    op.execute(
        """
        create table collection_versions (
            tenant_id uuid not null,
            collection_id uuid not null,
            shard smallint not null,
            version bigint not null,
            primary key (tenant_id, collection_id, shard),
            foreign key (tenant_id, collection_id) references collections (tenant_id, id) on delete cascade
        )
        """
    )
    isolate("collection_versions")
    op.execute(
        """
        create table audit (
            tenant_id uuid not null,
            id uuid not null,
            created_at timestamptz not null default clock_timestamp(),
            actor_id uuid,
            actor_label text,
            action text not null,
            resource text not null,
            ip_hash text,
            primary key (tenant_id, id)
        )
        """
    )
    isolate("audit")
    op.execute("create index audit_newest on audit (tenant_id, created_at desc, id desc)")
