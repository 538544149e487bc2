"""Which tenants there are, a page at a time: for the upkeep that comes by at each."""

from alembic import op

revision = "platform_0005"
down_revision = "platform_0004"


def upgrade() -> None:
    op.execute(
        """
        create function tenants_after(after uuid, most integer) returns table (id uuid)
        language sql stable security definer set search_path from current as $$
            select t.id from tenants t where after is null or t.id > after order by t.id limit most
        $$
        """
    )
    op.execute("revoke all on function tenants_after from public")
    op.execute("grant execute on function tenants_after to rememberos_app")
