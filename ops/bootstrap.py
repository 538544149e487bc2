"""Run as a program before the children start: migrates the schema and makes the first tenant with the key given."""

import json
import sys

from memory import services
from memory.errors import AppError, Conflict, NotFound, Unauthorized
from memory.settings import Settings

DEFAULT_EMAIL = "admin@localhost"


def main() -> int:
    """Last line of output: `{"created": …, "works": …, "files": …}`: is the tenant new, is the key valid, and what is
    wrong with the bucket, if anything."""
    settings = Settings()
    try:
        services.migrate(settings)
        outcome = {**first_tenant(settings), "files": trouble_with_files(settings)}
    except AppError as error:
        sys.stderr.write(f"{error.detail}\n")
        return 1
    sys.stdout.write(f"{json.dumps(outcome)}\n")
    return 0


def first_tenant(settings: Settings) -> dict[str, bool]:
    """Makes the tenant of BOOTSTRAP_EMAIL, an operator, with the key BOOTSTRAP_KEY, unless that key is known."""
    key = settings.bootstrap_key.get_secret_value() if settings.bootstrap_key is not None else ""
    built = services.build(settings)
    try:
        if _works(built, key):
            return {"created": False, "works": True}
        try:
            built.accounts.create_tenant(email=settings.bootstrap_email or DEFAULT_EMAIL, admin=True, api_key=key)
        except Conflict:
            return {"created": False, "works": False}
        return {"created": True, "works": True}
    finally:
        built.close()


def trouble_with_files(settings: Settings) -> str | None:
    """Why nothing can be kept in the bucket now; None where all is well, or files are kept in a folder."""
    if settings.s3_bucket is None:
        return None
    built = services.build(settings)
    try:
        built.objects.size("bootstrap/nothing")
    except NotFound:
        return None
    except AppError as error:
        return error.detail
    finally:
        built.close()
    return None


def _works(built: services.Services, key: str) -> bool:
    try:
        built.accounts.authenticate(key)
    except Unauthorized:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
