"""Tenants and keys: who may ask, and as whom."""

from alembic import op

from memory.store.migrations.access import isolate

revision = "platform_0001"
down_revision = None


def upgrade() -> None:
    op.execute(
        """
        create table tenants (
            id uuid primary key,
            name text not null,
            email text not null unique,
            tier text not null,
            is_admin boolean not null default false,
            created_at timestamptz not null default now()
        )
        """
    )
    op.execute(
        """
        create table keys (
            tenant_id uuid not null references tenants (id) on delete cascade,
            id uuid not null,
            hash bytea not null,
            prefix text not null,
            label text,
            read_only boolean not null default false,
            is_main boolean not null default false,
            created_at timestamptz not null default now(),
            expires_at timestamptz,
            last_used_at timestamptz,
            revoked_at timestamptz,
            primary key (tenant_id, id)
        )
        """
    )
    op.execute("create unique index keys_hash on keys (hash)")
    op.execute("create unique index keys_main on keys (tenant_id) where is_main and revoked_at is null")
    isolate("tenants", tenant="id")
    isolate("keys")
    # The one question asked before a tenant is known. It takes a hash and never gives one back.
    op.execute(
        """
        create function find_key(key_hash bytea)
        returns table (tenant_id uuid, key_id uuid, label text, read_only boolean, is_main boolean,
                       tenant_is_admin boolean)
        language sql stable security definer set search_path from current as $$
            select k.tenant_id, k.id, k.label, k.read_only, k.is_main, t.is_admin
            from keys k join tenants t on t.id = k.tenant_id
            where k.hash = key_hash
              and k.revoked_at is null
              and (k.expires_at is null or k.expires_at > now())
        $$
        """
    )
    op.execute("revoke all on function find_key from public")
    op.execute("grant execute on function find_key to rememberos_app")
