"""Which memories the filters leave at all: asked first where they are few, so that the arms look at nothing else."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb
from sqlmodel import Session

from memory.store import lexemes, statistics
from memory.store.arms import by_id
from memory.store.conditions import Conditions, Filters, contained

# A filter that leaves at most so many memories is resolved first; behind a wider one candidates are filtered after.
FEW = 10_000
# The planner's guess need not be near: it only decides whether to count.
_PROMISING = 3 * FEW


@dataclass(frozen=True)
class Allowed:
    """`ids`: a query of all visible memories' ids. `index`: the part that an index answers, which ends at its limit."""

    ids: str
    index: str | None
    values: dict[str, Any]

    def promises_few(self, session: Session) -> bool:
        """Whether it is worth counting them: as the planner sees it, without running anything."""
        if self.index is not None:
            return True
        plan = session.connection().exec_driver_sql(f"explain (format json) {self.ids}", self.values).scalar_one()
        parsed = json.loads(plan) if isinstance(plan, str) else plan
        rows: float = parsed[0]["Plan"]["Plan Rows"]
        return rows <= _PROMISING

    def count(self, session: Session) -> int | None:
        """How many there are; None when they are more than few."""
        counted = self._counted(session, self.ids)
        # An index' answer that was cut at its limit hides what the other filters would have left of the rest.
        if counted > FEW or (self.index is not None and self._counted(session, self.index) > FEW):
            return None
        return counted

    def _counted(self, session: Session, ids: str) -> int:
        counted: int = (
            session.connection()
            .exec_driver_sql(f"select count(*) from ({ids} limit {FEW + 1}) as counted", self.values)
            .scalar_one()
        )
        return counted


def allowed(session: Session, filters: Filters, asked: Conditions, values: dict[str, Any]) -> Allowed:
    """The visible memories of the collections in `values`, by way of an index where one helps."""
    index = None
    more: dict[str, Any] = {}
    words = _words(session, filters.phrases)
    metadata = contained(filters)
    if words:
        more["phrase_words"] = lexemes.all_of(words)
        index = f"select memory_id from find_by_terms(%(collections)s, %(phrase_words)s::tsquery, {FEW + 1})"
    elif metadata:
        more["contained"] = Jsonb(metadata)
        index = f"select memory_id from find_by_metadata(%(collections)s, %(contained)s, {FEW + 1})"
    return Allowed(_ids(index, asked), index, {**values, **more})


def _ids(index: str | None, asked: Conditions) -> str:
    source = "memories m" if index is None else f"({index}) as found cross join lateral {by_id('found.memory_id')} as m"
    return f"select m.id from {source} where m.collection_id = any (%(collections)s) and {asked.result}"


def _words(session: Session, phrases: Sequence[str]) -> list[str]:
    return [word for phrase in phrases for word in statistics.phrase_lexemes(session, phrase)]
