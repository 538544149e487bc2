"""Batches that can be cancelled, taken up again and forgotten, and files that are recognised when they come again."""

from alembic import op

revision = "tenant_0013"
down_revision = "tenant_0012"

INDEXES = (
    "files_of_duplicates on files (duplicate_of) where duplicate_of is not null",
    "files_of_key on files (key) where key is not null",
    "batches_completed on batches (completed_at) where completed_at is not null",
)


def upgrade() -> None:
    # `round` counts how often failed files were taken up again.
    op.execute(
        """
        alter table batches
            add column force boolean not null default false,
            add column cancelled_at timestamptz,
            add column round integer not null default 0
        """
    )
    op.execute(
        """
        alter table files
            add column duplicate_of uuid,
            add foreign key (tenant_id, duplicate_of) references files (tenant_id, id)
                on delete set null (duplicate_of),
            drop constraint files_status_check,
            add constraint files_status_check
                check (status in ('queued', 'processing', 'done', 'duplicate', 'failed'))
        """
    )
    for index in INDEXES:
        op.execute(f"create index {index}")
