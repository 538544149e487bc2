"""When the next memory of a collection expires: asked before every search, since answers may then change."""

from alembic import op

revision = "tenant_0007"
down_revision = "tenant_0006"


def upgrade() -> None:
    op.execute(
        "create index memories_next_expiry on memories (tenant_id, collection_id, expires_at) "
        "where expires_at is not null"
    )
