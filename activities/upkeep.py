"""The bench of upkeep: each method one repeatable step of what keeps the house clean by itself."""

import contextvars
from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from temporalio import activity


class Expiry(Protocol):
    """What this bench needs of the rules of expiry."""

    def due(self) -> list[UUID]: ...
    def sweep(self, tenant_id: UUID) -> bool: ...


class Indexes(Protocol):
    """What this bench needs of the rules of indexes."""

    def advance(self, stopping: Callable[[], bool]) -> bool: ...


class Cleaning(Protocol):
    """What this bench needs of the rules of cleaning."""

    def tenants(self, after: UUID | None) -> list[UUID]: ...
    def clean(self, tenant_id: UUID) -> None: ...


class UpkeepActivities:
    def __init__(self, expiry: Expiry, indexes: Indexes, cleaning: Cleaning) -> None:
        self._expiry = expiry
        self._indexes = indexes
        self._cleaning = cleaning

    @activity.defn
    def list_tenants_with_expired(self) -> list[str]:
        """Ids of tenants that have memories whose time is over."""
        return [str(tenant_id) for tenant_id in self._expiry.due()]

    @activity.defn
    def sweep_expired(self, tenant_id: str) -> bool:
        """Removes some of a tenant's expired memories; whether there may be more."""
        return self._expiry.sweep(UUID(tenant_id))

    @activity.defn
    def list_tenants(self, after: str | None) -> list[str]:
        """Ids of the next tenants; none after the last."""
        return [str(tenant_id) for tenant_id in self._cleaning.tenants(None if after is None else UUID(after))]

    @activity.defn
    def clean_tenant(self, tenant_id: str) -> None:
        """Removes a tenant's old batches, and objects that no row knows of."""
        self._cleaning.clean(UUID(tenant_id))

    @activity.defn(no_thread_cancel_exception=True)
    def build_index(self) -> bool:
        """Does the most urgent piece of work on indexes over vectors; whether there may be more."""
        mine = contextvars.copy_context()
        # Whoever watches asks from a thread of its own, which knows of no activity.
        return self._indexes.advance(lambda: mine.copy().run(_is_to_stop))


def _is_to_stop() -> bool:
    return activity.is_cancelled() or activity.is_worker_shutdown()
