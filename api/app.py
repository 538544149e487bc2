"""The application: routers, middleware, error handlers, and what lives as long as it serves."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
from anyio import to_thread
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from api import (
    account,
    batches,
    collections,
    curation,
    drop,
    errors,
    grants,
    keys,
    limits,
    memories,
    public,
    search,
)
from api.arriving import Room
from api.document import DescribedApi
from api.idempotency import REPLAYED
from api.middleware import Failures, RequestLog
from api.temporal import WorkflowClient
from memory.services import Services, build
from memory.settings import Settings

# Routes wait in threads for models and providers. With AnyIO's 40, sixty slow ones make everybody else wait too.
THREADS = 200

# Where a Temporal server of one machine listens by default.
_LOCAL_TEMPORAL = "127.0.0.1:7233"
_READABLE_BY_PAGES = ["ETag", "X-Request-Id", "X-Total-Count", "Retry-After", *limits.HEADERS, REPLAYED]


def create_app(settings: Settings | None = None, services: Services | None = None) -> FastAPI:
    """The API. Builds its services unless they are given, and closes only those that it built."""
    settings = settings or Settings()
    limiter = limits.limiter(settings)
    app = DescribedApi(
        title="RememberOS API",
        version="0.1.0",
        servers=[{"url": settings.api_url}],
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan(settings, services),
        exception_handlers=errors.HANDLERS,
        middleware=[
            Middleware(RequestLog),
            Middleware(limits.RateHeaders, limiter=limiter),
            Middleware(
                CORSMiddleware,
                allow_origins=["*"],
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=_READABLE_BY_PAGES,
            ),
            Middleware(Failures),
            Middleware(limits.PublicLimit, limiter=limiter),
        ],
    )
    app.state.limiter = limiter
    app.state.room = Room(settings.rememberos_data / "arriving")
    # In this order they are tried: what is asked most comes first.
    for part in (search, collections, memories, drop, batches, curation, keys, grants, account, public):
        app.include_router(part.router)
    public.mount_explorer(app, api_url=settings.api_url)
    return app


def _lifespan(settings: Settings, given: Services | None) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = THREADS
        services = await to_thread.run_sync(build, settings) if given is None else given
        app.state.services = services
        app.state.workflows = WorkflowClient(settings.temporal_address or _LOCAL_TEMPORAL, settings.temporal_namespace)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(app.state.room.tidy)
                yield
                tasks.cancel_scope.cancel()
        finally:
            await app.state.limiter.close()
            if given is None:
                await to_thread.run_sync(services.close)

    return lifespan
