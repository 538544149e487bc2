"""Requests that may be repeated: the mark that one was carried out, committed with what it changed."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlmodel import Session

from memory.errors import Repeated
from memory.schemas import Caller, Once

KEPT_HOURS = 24
_KEPT = f"created_at > clock_timestamp() - interval '{KEPT_HOURS} hours'"
_SAME = "tenant_id = :tenant_id and key_id = :key_id and path = :path and token = :token"


@dataclass(frozen=True)
class Mark:
    """What is known of a request that was carried out; `status` and `answer` are filled in after the change."""

    body: bytes
    resource: str | None
    status: int | None
    answer: bytes | None
    age_seconds: float


def mark(session: Session, caller: Caller) -> None:
    """Marks the caller's request as carried out, if it may be repeated; again in the same transaction does nothing.

    While another transaction that marks the same request is open, it waits for that one's end. Raises Repeated.
    """
    once = caller.once
    if once is None or session.info.get("marked") == once.attempt:
        return
    marked = session.execute(
        text(
            f"""
            insert into idempotent_requests as r (tenant_id, key_id, path, token, body, attempt)
            values (:tenant_id, :key_id, :path, :token, :body, :attempt)
            on conflict (tenant_id, key_id, path, token) do update
            set body = excluded.body, attempt = excluded.attempt, resource = null, status = null, answer = null,
                created_at = excluded.created_at
            where r.attempt = excluded.attempt or not r.{_KEPT}
            returning attempt
            """
        ),
        {**_named(caller, once), "body": once.body, "attempt": once.attempt},
    )
    if marked.one_or_none() is None:
        raise Repeated("a request with this Idempotency-Key was carried out already")
    session.info["marked"] = once.attempt


def describe(session: Session, caller: Caller, resource: str) -> None:
    """Notes on the mark what the request made, for an answer that gets lost."""
    if caller.once is not None:
        session.execute(
            text(f"update idempotent_requests set resource = :resource where {_SAME}"),
            {**_named(caller, caller.once), "resource": resource},
        )


def find(session: Session, caller: Caller, once: Once) -> Mark | None:
    """The mark of the same request, unless it is too old."""
    row = session.execute(
        text(
            f"""
            select body, resource, status, answer,
                   extract(epoch from clock_timestamp() - created_at)::double precision as age_seconds
            from idempotent_requests where {_SAME} and {_KEPT}
            """
        ),
        _named(caller, once),
    ).one_or_none()
    return None if row is None else Mark(row.body, row.resource, row.status, row.answer, row.age_seconds)


def keep_answer(session: Session, caller: Caller, once: Once, status: int, answer: bytes) -> None:
    """Adds the answer to the mark that this attempt set; without one there was nothing to repeat."""
    session.execute(
        text(f"update idempotent_requests set status = :status, answer = :answer where {_SAME} and attempt = :attempt"),
        {**_named(caller, once), "attempt": once.attempt, "status": status, "answer": answer},
    )


def forget_old(session: Session, most: int) -> int:
    """Removes marks, of all tenants, that are too old to matter; how many went."""
    removed: int = session.execute(
        text(f"select forget_idempotent_requests(now() - interval '{KEPT_HOURS} hours', :most)"), {"most": most}
    ).scalar_one()
    return removed


def _named(caller: Caller, once: Once) -> dict[str, object]:
    return {"tenant_id": caller.tenant_id, "key_id": caller.key_id, "path": once.path, "token": once.token}
