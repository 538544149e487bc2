"""Grants: which agents may use a collection that is no longer open to all of its tenant's."""

from alembic import op

from memory.store.migrations.access import isolate

revision = "platform_0002"
down_revision = "platform_0001"


def upgrade() -> None:
    # No foreign key to the collection: it may lie in a database of the tenant's own.
    op.execute(
        """
        create table grants (
            tenant_id uuid not null references tenants (id) on delete cascade,
            collection_id uuid not null,
            key_id uuid not null,
            can_read boolean not null,
            can_write boolean not null,
            created_at timestamptz not null default now(),
            primary key (tenant_id, collection_id, key_id),
            foreign key (tenant_id, key_id) references keys (tenant_id, id) on delete cascade
        )
        """
    )
    isolate("grants")
    op.execute("drop function find_key(bytea)")
    # Whether any collection is restricted comes along: most tenants have none, and then nothing more is asked.
    op.execute(
        """
        create function find_key(key_hash bytea)
        returns table (tenant_id uuid, key_id uuid, label text, read_only boolean, is_main boolean,
                       tenant_is_admin boolean, has_grants boolean)
        language sql stable security definer set search_path from current as $$
            select k.tenant_id, k.id, k.label, k.read_only, k.is_main, t.is_admin,
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
