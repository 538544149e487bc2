"""The bench of upkeep: each method one repeatable step of what keeps the house clean by itself."""

from typing import Protocol
from uuid import UUID

from temporalio import activity


class Expiry(Protocol):
    """What this bench needs of the rules of expiry."""

    def due(self) -> list[UUID]: ...
    def sweep(self, tenant_id: UUID) -> bool: ...


class UpkeepActivities:
    def __init__(self, expiry: Expiry) -> None:
        self._expiry = expiry

    @activity.defn
    def list_tenants_with_expired(self) -> list[str]:
        """Ids of tenants that have memories whose time is over."""
        return [str(tenant_id) for tenant_id in self._expiry.due()]

    @activity.defn
    def sweep_expired(self, tenant_id: str) -> bool:
        """Removes some of a tenant's expired memories; whether there may be more."""
        return self._expiry.sweep(UUID(tenant_id))
