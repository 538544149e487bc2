"""One error family: every way the house says no, with its HTTP status and whether trying again can help."""

from typing import ClassVar


class AppError(Exception):
    """Base of every refusal.

    `detail` is one readable sentence without secrets; `retryable` says whether time can heal it, `retry_after` after
    how many seconds a client may ask again.
    """

    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    retry_after: ClassVar[int | None] = None

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class BadRequest(AppError):
    """The request is well-formed but means something that cannot be done (400)."""

    status = 400


class Unauthorized(AppError):
    """No key, or one that is unknown, revoked or expired (401)."""

    status = 401


class Forbidden(AppError):
    """The caller is known and may not do this (403)."""

    status = 403


class NotFound(AppError):
    """No such thing, or another tenant's (404)."""

    status = 404


class SlowRequest(AppError):
    """The request stopped arriving (408)."""

    status = 408
    retryable = True


class Conflict(AppError):
    """It exists already or changed meanwhile (409)."""

    status = 409


class PreconditionFailed(AppError):
    """It is no longer what the caller believes it to be (412)."""

    status = 412


class Repeated(Conflict):
    """A request with this Idempotency-Key was carried out already (409, where its answer cannot be given again)."""


class TooManyRequests(AppError):
    """Over the limit of requests in a minute (429)."""

    status = 429
    retryable = True


class TooLarge(AppError):
    """Over a size limit (413)."""

    status = 413


class Invalid(AppError):
    """A value has the wrong shape or is out of range (422)."""

    status = 422


class RejectedFile(AppError):
    """A dropped file cannot be read; `detail` is the reason its owner sees (422)."""

    status = 422


class Unavailable(AppError):
    """Something the house stands on does not answer now (503); trying again later helps."""

    status = 503
    retryable = True
    retry_after = 5


class Slow(Unavailable):
    """It was asked, and did not answer for as long as it was given (503); each further try costs that long again."""


class Misconfigured(AppError):
    """The installation is set up wrongly; `detail` names the setting or command that mends it (503)."""

    status = 503
    retry_after = 60
