"""The batches of a collection: its deletion asks for them, and takes along what failed."""

from alembic import op

revision = "tenant_0015"
down_revision = "tenant_0014"


def upgrade() -> None:
    op.execute("create index batches_of_collection on batches (collection_id) where collection_id is not null")
