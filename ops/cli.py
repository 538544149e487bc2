"""The `rememberos` command: reads its arguments, calls the part of `ops` that does it, and says how it ended."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from rich.console import Console

from memory.errors import AppError, Misconfigured
from memory.settings import Settings
from ops import demo as demonstration
from ops import local

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="RememberOS on the command line. Settings come from the environment and from .env; see the README's table.",
)
console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)

Data = Annotated[Path | None, typer.Option(help="Folder of everything kept (REMEMBEROS_DATA).", show_default=False)]
Port = Annotated[
    int | None, typer.Option(min=0, max=65535, help="Port of the API, 0 for a free one (API_PORT).", show_default=False)
]


def main() -> None:
    """Every refusal is one readable line and exit code 1."""
    try:
        app()
    except AppError as error:
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"rememberos: {error.detail}")
        raise SystemExit(1) from error


@app.command()
def up(data: Data = None, port: Port = None) -> None:
    """Run everything on this machine until Ctrl-C: Postgres, Temporal, API and worker."""
    local.up(_settings(data, port), _say, welcome=_welcome)


@app.command()
def demo(data: Data = None, port: Port = None) -> None:
    """The same, and then drop the example documents, search them and go on serving."""

    def guest(serving: local.Serving) -> None:
        demonstration.run(serving, console)
        _welcome(serving, show_key=True)

    local.up(_settings(data, port), _say, welcome=lambda _: None, guest=guest)


@app.command()
def migrate(data: Data = None) -> None:
    """Upgrade the database schema, as its owner, and make the first tenant where BOOTSTRAP_ settings name it."""
    from ops import upkeep  # here and below: it loads the whole house, which `up` must not carry

    with upkeep.with_database(_settings(data)) as settings:
        upkeep.migrate(settings)
    _say("the schema is up to date")


@app.command()
def create_tenant(
    email: Annotated[str, typer.Option(help="Address of the tenant's owner.")],
    name: Annotated[str | None, typer.Option(help="What to call it; the address unless given.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="May use the operator's routes.")] = False,
    tier: Annotated[str, typer.Option(help="free, pro, enterprise or self_hosted.")] = "self_hosted",
    data: Data = None,
) -> None:
    """Make a tenant and its main key, printed as the last line in JSON and never shown again."""
    from ops import upkeep

    with upkeep.with_database(_settings(data)) as settings:
        made = upkeep.create_tenant(settings, email=email, name=name, admin=admin, tier=tier)
    typer.echo(json.dumps(made))


@app.command()
def drop(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders; folders with all that is in them.")],
    collection: Annotated[str, typer.Option("--collection", "-c", help="Where to; made if it is missing.")],
    tag: Annotated[str | None, typer.Option(help="Container tag of every memory.", show_default=False)] = None,
    category: Annotated[str | None, typer.Option(help="Category of every memory.", show_default=False)] = None,
    metadata: Annotated[str | None, typer.Option(help="A JSON object for every memory.", show_default=False)] = None,
    force: Annotated[bool, typer.Option("--force", help="Also what is there already.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Until all is taken in, not until it is read.")] = False,
    url: Annotated[str | None, typer.Option(help="Address of the API (REMEMBEROS_URL).", show_default=False)] = None,
    key: Annotated[str | None, typer.Option(help="Its key (REMEMBEROS_KEY).", show_default=False)] = None,
    data: Data = None,
) -> None:
    """Drop files and folders. Run again, it sends only what is missing. Exit code 1 when a file failed."""
    from ops import drop_command  # its client and its bar would slow every other command down

    given = drop_command.Given(
        paths, collection, tag, category, metadata, force=force, wait=not no_wait, url=url, key=key
    )
    raise typer.Exit(drop_command.run(_settings(data), given, console))


@app.command()
def doctor(
    data: Data = None,
    only: Annotated[str | None, typer.Option(help="Check this part alone.", show_default=False)] = None,
) -> None:
    """Check every part; say what is wrong and what to do. Exit code 1 when something is."""
    from ops import doctor as examination

    healthy = True
    for finding in examination.examine(_settings(data), only=only):
        console.print(f"{'ok ' if finding.remedy is None else 'BAD'}  {finding.part}: {finding.text}")
        if finding.remedy is not None:
            healthy = False
            console.print(f"     -> {finding.remedy}")
    if not healthy:
        raise typer.Exit(1)


def _settings(data: Path | None, port: int | None = None) -> Settings:
    given: dict[str, Any] = {}
    if data is not None:
        given["rememberos_data"] = data
    if port is not None:
        given["api_port"] = port
    try:
        settings = Settings(**given)
    except ValidationError as error:
        # Without the values: a setting may be a secret.
        wrong = "; ".join(_wrong(item) for item in error.errors())
        raise Misconfigured(f"settings: {wrong}") from None
    return settings.model_copy(update={"rememberos_data": settings.rememberos_data.expanduser().absolute()})


def _wrong(item: ErrorDetails) -> str:
    return ": ".join([*(str(name).upper() for name in item["loc"][:1]), item["msg"].removeprefix("Value error, ")])


def _say(text: str) -> None:
    console.print(text)


def _welcome(serving: local.Serving, *, show_key: bool = False) -> None:
    runtime = serving.runtime
    lines: list[tuple[str, str | None]] = [
        ("API", runtime.api_url),
        ("Explorer", f"{runtime.api_url}/api-explorer.html"),
        ("Temporal UI", runtime.temporal_ui),
        ("Admin key", _key(serving, shown=show_key or serving.key_is_new)),
        ("Data, logs", f"{serving.data}, {serving.data / 'logs'}"),
    ]
    console.print()
    for name, value in lines:
        if value is not None:
            console.print(f"  {name:<12} {value}")
    console.print("\n  Ctrl-C stops everything.")


def _key(serving: local.Serving, *, shown: bool) -> str | None:
    if serving.admin_key is None:
        return None
    file = serving.data / "admin-key"
    return f"{serving.admin_key}  (kept in {file})" if shown else f"in {file}"
