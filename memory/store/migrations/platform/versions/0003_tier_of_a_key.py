"""Which tier a caller's account is of comes along with the key, so that limits cost no question of their own."""

from alembic import op

revision = "platform_0003"
down_revision = "platform_0002"


def upgrade() -> None:
    op.execute("drop function find_key(bytea)")
    op.execute(
        """
        create function find_key(key_hash bytea)
        returns table (tenant_id uuid, key_id uuid, label text, read_only boolean, is_main boolean,
                       tenant_is_admin boolean, tier text, has_grants boolean)
        language sql stable security definer set search_path from current as $$
            select k.tenant_id, k.id, k.label, k.read_only, k.is_main, t.is_admin, t.tier,
                   exists (select from grants g where g.tenant_id = k.tenant_id)
            from keys k join tenants t on t.id = k.tenant_id
            where k.hash = key_hash
              and k.revoked_at is null
              and (k.expires_at is null or k.expires_at > now())
        $$
        """
    )
    op.execute("revoke all on function find_key from public")
    op.execute("grant execute on function find_key to rememberos_app")
