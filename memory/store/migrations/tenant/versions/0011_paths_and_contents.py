"""The path that a file had where it was dropped, and the way from a content to the files that hold it."""

from alembic import op

revision = "tenant_0011"
down_revision = "tenant_0010"


def upgrade() -> None:
    op.execute("alter table files add column path text")
    op.execute("create index files_of_content on files (sha256)")
