"""Files that lie in other files: where, how deep, and what their memories get from those around them."""

from alembic import op

revision = "tenant_0014"
down_revision = "tenant_0013"


def upgrade() -> None:
    op.execute(
        """
        alter table files
            add column parent_id uuid,
            add column depth integer not null default 0,
            add column place integer not null default 0,
            add column inherited jsonb not null default '{}'
        """
    )
