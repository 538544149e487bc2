"""Alembic migrations: two histories, `platform/` and `tenant/`, because a tenant may bring its own Postgres."""
