"""Where vectors are looked for: in an index where there is one that pays, row by row where not."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlmodel import Session

# What it takes to go through one entry of an index, in rows of a scan.
_ENTRY = 14


@dataclass(frozen=True)
class VectorIndex:
    """An index over one model's vectors of some of a tenant's collections, written in the segments `first` to `last`.

    `memories`: how many each collection had in it when it was built.
    """

    id: int
    tenant_id: UUID
    model_id: int
    memories: dict[UUID, int]
    first: int
    last: int

    @property
    def size(self) -> int:
        return sum(self.memories.values())

    def covers(self, segment: int) -> bool:
        return self.first <= segment <= self.last

    def overlaps(self, other: "VectorIndex") -> bool:
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Scan:
    """Vectors to read in one go: `condition` is SQL with the parameters `values`."""

    condition: str
    values: dict[str, Any]
    by_index: bool


def condition(model_id: int, collection_ids: Sequence[UUID], first: int, last: int) -> str:
    """What an index is built over. A search that says the same, word by word, is answered by it."""
    listed = ",".join(map(str, collection_ids))
    return (
        f"model_id = {model_id:d} and collection_id = any ('{{{listed}}}'::uuid[]) "
        f"and segment between {first:d} and {last:d}"
    )


def ready(session: Session, collection_ids: Sequence[UUID], model_id: int) -> list[VectorIndex]:
    """The indexes over vectors of these collections."""
    rows = session.connection().exec_driver_sql(
        """
        select id, tenant_id, model_id, collections, memories, first_segment, last_segment from vector_indexes
        where is_ready and model_id = %(model)s and collections && %(collections)s::uuid[]
        """,
        {"model": model_id, "collections": list(collection_ids)},
    )
    return [index_of(*row) for row in rows]


def index_of(
    index_id: int,
    tenant_id: UUID,
    model_id: int,
    collections: Sequence[UUID],
    memories: Sequence[int],
    first: int,
    last: int,
) -> VectorIndex:
    """An index as its row has it."""
    return VectorIndex(index_id, tenant_id, model_id, dict(zip(collections, memories, strict=True)), first, last)


def answering(indexes: Sequence[VectorIndex]) -> list[tuple[VectorIndex, list[UUID]]]:
    """For which collections each index answers, so that none answers twice for the same rows.

    An index of fewer collections goes before one of more: a collection has its own once it is large.
    """
    taken: dict[tuple[int, UUID], list[VectorIndex]] = {}
    result = []
    for index in sorted(indexes, key=lambda index: (len(index.memories), index.id)):
        mine = []
        for one in index.memories:
            before = taken.setdefault((index.model_id, one), [])
            if not any(index.overlaps(other) for other in before):
                before.append(index)
                mine.append(one)
        result.append((index, mine))
    return result


def scans(indexes: Sequence[VectorIndex], collection_ids: Sequence[UUID], model_id: int, fetch: int) -> list[Scan]:
    """How the nearest `fetch` vectors of the collections are read: each row by exactly one of the scans."""
    result = []
    wanted = set(collection_ids)
    covered: dict[UUID, list[VectorIndex]] = {one: [] for one in collection_ids}
    for index, answers_for in answering(indexes):
        mine = [one for one in answers_for if one in wanted]
        if _pays(index, sum(index.memories[one] for one in mine), fetch):
            for one in mine:
                covered[one].append(index)
            over = condition(model_id, list(index.memories), index.first, index.last)
            name = f"in_{index.id}"
            result.append(Scan(f"{over} and collection_id = any (%({name})s::uuid[])", {name: mine}, by_index=True))
    rest: dict[str, list[UUID]] = {}
    for one, by in covered.items():
        for gap in _gaps(sorted(by, key=lambda index: index.first)):
            rest.setdefault(gap, []).append(one)
    for number, (gap, mine) in enumerate(rest.items()):
        name = f"scanned_{number}"
        result.append(
            Scan(
                f"model_id = {model_id:d} and collection_id = any (%({name})s::uuid[]) {gap}",
                {name: mine},
                by_index=False,
            )
        )
    return result


def _pays(index: VectorIndex, held: int, fetch: int) -> bool:
    # Entries of collections that are not asked for are gone through, too. Much deeper than that, a scan is as quick,
    # and it misses nothing.
    return fetch * index.size * _ENTRY < held * held


def _gaps(by: Sequence[VectorIndex]) -> Iterator[str]:
    """The segments that none of these indexes covers, as SQL."""
    free = 0
    for index in by:
        if index.first > free:
            yield f"and segment between {free:d} and {index.first - 1:d}"
        free = index.last + 1
    yield f"and segment >= {free:d}" if free else ""
