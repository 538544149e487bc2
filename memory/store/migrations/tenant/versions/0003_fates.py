"""What the fates of memories need: the way back through what was superseded, and who has something that expired."""

from alembic import op

revision = "tenant_0003"
down_revision = "tenant_0002"


def upgrade() -> None:
    op.execute(
        "create index memories_superseding on memories (tenant_id, superseded_by) where superseded_by is not null"
    )
    # Ids are many and looked up under any tag: with the tag first every tag of the collection would be looked through.
    op.execute("drop index memories_external_id")
    op.execute(
        """
        create unique index memories_external_id on memories (tenant_id, collection_id, external_id, container_tag)
        nulls not distinct where external_id is not null and is_latest
        """
    )
    op.execute(
        """
        create function tenants_with_expired(most integer) returns table (tenant_id uuid)
        language sql stable security definer set search_path from current as $$
            select m.tenant_id from memories m
            where m.expires_at <= now()
            group by m.tenant_id
            order by min(m.expires_at)
            limit most
        $$
        """
    )
    op.execute("revoke all on function tenants_with_expired from public")
    op.execute("grant execute on function tenants_with_expired to rememberos_app")
