"""A cancelled batch has no file that is still to be ended, so nothing has to remember that it was cancelled."""

from alembic import op

revision = "tenant_0017"
down_revision = "tenant_0016"


def upgrade() -> None:
    op.execute("alter table batches drop column cancelled_at")
