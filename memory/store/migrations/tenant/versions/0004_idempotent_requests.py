"""Requests that are carried out once: their marks lie where the changes lie, to be committed with them."""

from alembic import op

from memory.store.migrations.access import isolate

revision = "tenant_0004"
down_revision = "tenant_0003"


def upgrade() -> None:
    # `token` and `body` are digests, `answer` is sealed by the token: nothing here can be read without the request.
    op.execute(
        """
        create table idempotent_requests (
            tenant_id uuid not null,
            key_id uuid not null,
            path text not null,
            token bytea not null,
            body bytea not null,
            attempt uuid not null,
            resource text,
            status smallint,
            answer bytea,
            created_at timestamptz not null default clock_timestamp(),
            primary key (tenant_id, key_id, path, token)
        )
        """
    )
    isolate("idempotent_requests")
    op.execute("create index idempotent_requests_oldest on idempotent_requests (created_at)")
    op.execute(
        """
        create function forget_idempotent_requests(made_before timestamptz, most integer) returns integer
        language sql volatile security definer set search_path from current as $$
            with gone as (
                delete from idempotent_requests
                where (tenant_id, key_id, path, token) in (
                    select tenant_id, key_id, path, token from idempotent_requests
                    where created_at < least(made_before, now() - interval '1 day')
                    order by created_at limit most for update skip locked
                )
                returning 1
            )
            select count(*)::integer from gone
        $$
        """
    )
    op.execute("revoke all on function forget_idempotent_requests from public")
    op.execute("grant execute on function forget_idempotent_requests to rememberos_app")
