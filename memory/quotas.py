"""How much an account of each tier may have. What is there already stays, whatever the limit."""

from uuid import UUID

from memory.account_schemas import Limits
from memory.errors import Forbidden
from memory.schemas import Caller
from memory.store import accounts, usage
from memory.store.database import Session

UNLIMITED = "self_hosted"
MAX_FILE_BYTES = 10 * 1024 * 1024
_GIGABYTE = 1024**3


def _limits(**most: int) -> Limits:
    return Limits(max_file_bytes=MAX_FILE_BYTES, **most)


TIERS: dict[str, Limits] = {
    "free": _limits(max_collections=10, max_memories=10_000, max_storage_bytes=_GIGABYTE),
    "pro": _limits(max_collections=200, max_memories=500_000, max_storage_bytes=50 * _GIGABYTE),
    "enterprise": _limits(),
    UNLIMITED: _limits(),
}


def of_tier(tier: str) -> Limits:
    """A tier that is no longer known has no limits."""
    return TIERS.get(tier, TIERS[UNLIMITED])


def room_for_a_collection(session: Session, caller: Caller) -> None:
    """Until the transaction ends, nobody else takes the room. Raises Forbidden when there is none."""
    most = of_tier(caller.tier).max_collections
    if most is not None:
        usage.hold(session, caller.tenant_id)
        _require(usage.collections(session) + 1 <= most, caller, f"{most} collections")


def room_for_memories(session: Session, caller: Caller, count: int) -> None:
    """The same for so many new memories."""
    most = of_tier(caller.tier).max_memories
    if most is not None and count:
        usage.hold(session, caller.tenant_id)
        _require(usage.memories(session) + count <= most, caller, f"{most} memories")


def room_for_files(session: Session, caller: Caller, size_bytes: int) -> None:
    """The same for files of that size together."""
    most = of_tier(caller.tier).max_storage_bytes
    if most is not None and size_bytes:
        usage.hold(session, caller.tenant_id)
        _require(usage.storage_bytes(session) + size_bytes <= most, caller, f"{most} bytes of files")


def room_for_members(session: Session, tenant_id: UUID, *, count: int, size_bytes: int) -> None:
    """The same for files that lie in one that was taken in: as many memories at least, and so many bytes."""
    tier = accounts.find_tenant(session, tenant_id)["tier"]
    caller = Caller(tenant_id, key_id=None, label=None, tier=tier)
    room_for_memories(session, caller, count)
    room_for_files(session, caller, size_bytes)


def _require(fits: bool, caller: Caller, limit: str) -> None:
    if not fits:
        raise Forbidden(f"the tier {caller.tier!r} is limited to {limit}")
