"""Routes that need no key: liveness, the explorer, signed links to stored files."""

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse
from starlette.responses import MalformedRangeHeader, RangeNotSatisfiable
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from api import errors
from api.arriving import Arriving, pieces
from api.deps import Services
from memory.adapters.objects import LocalObjects, attachment, media_type
from memory.errors import Forbidden, NotFound, TooLarge

router = APIRouter(tags=["misc"])

_FILE = "/v1/memory/files/{key:path}"
_ASSETS = "/api-explorer"
# The page may load nothing from elsewhere, so it works the same without an internet connection.
_EXPLORER_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self' {api}; frame-ancestors 'none'"
)
# What tenants store is never run as part of our own site.
_DOWNLOAD = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cache-Control": "private, no-store",
}


class _BeyondTheEnd(Exception):
    def __init__(self, size: int) -> None:
        self.size = size


class _StoredFile(FileResponse):
    """A range that is none, or counts something else than bytes, is as if it were not asked for."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except _BeyondTheEnd as beyond:
            await errors.beyond_the_end(beyond.size)(scope, receive, send)

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader:
            return []
        except RangeNotSatisfiable as error:
            # Answered by the framework, it would be the only refusal whose body is no JSON.
            raise _BeyondTheEnd(file_size) from error


# Monitors often ask with HEAD.
@router.head("/v1/memory/health", include_in_schema=False)
@router.get("/v1/memory/health")
async def health() -> dict[str, str]:
    """Liveness: answers whenever the process lives, and needs no thread, database or Temporal for it."""
    return {"status": "healthy"}


@router.head(_FILE, include_in_schema=False)
@router.get(_FILE, include_in_schema=False)
def download_file(
    services: Services,
    key: str,
    signature: str = "",
    expires: int = 0,
    filename: str = "",
    content_type: Annotated[str, Query(alias="type")] = "",
) -> FileResponse:
    """A stored file, or a range of it, for whoever holds a link that we signed; files in a bucket have links of the
    bucket's own."""
    objects = services.objects
    if not isinstance(objects, LocalObjects):
        raise NotFound("no such file, or the link has expired")
    objects.verify(key, filename=filename, content_type=content_type, expires=expires, signature=signature)
    return _StoredFile(
        objects.path(key),
        media_type=media_type(content_type),
        headers={**_DOWNLOAD, "Content-Disposition": attachment(filename)},
    )


@router.put(_FILE, include_in_schema=False)
async def upload_file(
    request: Request,
    services: Services,
    key: str,
    signature: str = "",
    expires: int = 0,
    size: int = -1,
    content_type: Annotated[str, Query(alias="type")] = "",
) -> Response:
    """Takes in a file from whoever holds a link that we signed for it."""
    objects = services.objects
    if not isinstance(objects, LocalObjects):
        raise Forbidden("files go to the bucket itself here")
    objects.verify_upload(key, content_type=content_type, size=size, expires=expires, signature=signature)
    if request.headers.get("content-type", "").strip() != content_type:
        raise Forbidden(f"this link was made for the header `Content-Type: {content_type}`")
    arriving = Arriving(request.app.state.room, size)
    try:
        async for piece in pieces(request):
            await arriving.add(piece)
            if arriving.is_over:
                raise TooLarge(f"more than the {size} bytes that were announced")
        async with arriving.whole() as source:
            await to_thread.run_sync(services.uploads.receive, key, source, size)
    finally:
        arriving.close()
    return Response(status_code=200)


def mount_explorer(app: FastAPI, *, api_url: str) -> None:
    """The explorer page and its assets, which the package `fastapi-offline` carries."""
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title=f"{app.title}: explorer",
        swagger_js_url=f"{_ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{_ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{_ASSETS}/favicon.png",
        # Otherwise Swagger UI sends the specification's address to a validator on the internet.
        swagger_ui_parameters={"validatorUrl": None},
    )
    page.headers["Content-Security-Policy"] = _EXPLORER_POLICY.format(api=api_url)

    @app.get("/api-explorer.html", include_in_schema=False)
    async def explorer() -> HTMLResponse:
        return page

    app.mount(_ASSETS, StaticFiles(packages=[("fastapi_offline", "static")]), name="explorer assets")
