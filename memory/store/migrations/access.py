"""What every migration says about access, said once: tenants see their own rows, the owner sees all for upkeep."""

from alembic import op

# As a subquery it is worked out once a statement, not once a row.
TENANT = "(select nullif(current_setting('app.tenant', true), '')::uuid)"


def isolate(table: str, *, tenant: str = "tenant_id") -> None:
    """Row-level security in FORCE mode: the app role works within the transaction's tenant or sees nothing."""
    op.execute(f"alter table {table} enable row level security")
    op.execute(f"alter table {table} force row level security")
    own = f"{tenant} = {TENANT}"
    op.execute(f"create policy tenant on {table} to rememberos_app using ({own}) with check ({own})")
    # Without it a back-filling migration would change no row and say nothing.
    op.execute(f"create policy upkeep on {table} to current_user using (true) with check (true)")
    op.execute(f"grant select, insert, update, delete on {table} to rememberos_app")
    if tenant == "tenant_id":
        # Which tenant it is the planner cannot know. Left to its count, it takes each of many small tenants for one
        # row, and joins the rows of a large one each with every other.
        op.execute(f"alter table {table} alter column tenant_id set (n_distinct = 10)")


def give_to_search_reader(signature: str) -> None:
    """Makes a function run as `search_reader`, whose own policies let the index be used; only the app may call it.

    The owner may become `search_reader` but does not inherit from it, and `search_reader` may create in the schema
    only for the moment in which it is handed the function.
    """
    schema = op.get_bind().exec_driver_sql("select current_schema()").scalar_one()
    op.execute(f'grant create on schema "{schema}" to search_reader')
    op.execute(f"alter function {signature} owner to search_reader")
    op.execute(f'revoke create on schema "{schema}" from search_reader')
    op.execute("set local role search_reader")
    op.execute(f"revoke all on function {signature} from public")
    op.execute(f"grant execute on function {signature} to rememberos_app")
    op.execute("reset role")
