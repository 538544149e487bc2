"""Routes of an account: who it is, what it uses, what was done in it."""

from typing import Annotated

from fastapi import Query, Response
from pydantic import TypeAdapter

from api.auth import Operator, Reader
from api.deps import Services
from api.routing import answer, answer_list
from api.routing import router as guarded_router
from memory.account_schemas import Account, AuditEntry, AuditPage, Usage

router = guarded_router("account")

_entries = TypeAdapter(list[AuditEntry])


@router.get("/v1/memory/admin/me", response_model=Account)
def me(caller: Reader, services: Services) -> Response:
    """Your account, its tier and its limits; null is no limit."""
    return answer(services.accounts.me(caller))


@router.get("/v1/memory/admin/stats", response_model=Usage)
def stats(caller: Reader, services: Services) -> Response:
    """What your account holds, and how much of it is new."""
    return answer(services.accounts.usage(caller))


@router.get("/v1/memory/admin/audit", response_model=list[AuditEntry])
def audit(caller: Operator, services: Services, wanted: Annotated[AuditPage, Query()]) -> Response:
    """What was changed in your own account, newest first, for operators; their number in `X-Total-Count`."""
    return answer_list(_entries, *services.accounts.audit(caller, wanted))
