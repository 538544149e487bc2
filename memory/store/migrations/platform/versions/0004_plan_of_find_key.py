"""Who holds a key is asked by every request: planned once a connection, not each time."""

from alembic import op

revision = "platform_0004"
down_revision = "platform_0003"


def upgrade() -> None:
    op.execute("alter function find_key(bytea) set plan_cache_mode = force_generic_plan")
