"""Overviews of a collection: its health, where its truth changed, and what it is about."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from memory.curation import stale_before
from memory.curation_schemas import Contradiction, Health, NoHealth, Summary
from memory.grants import Grants
from memory.memories import linked
from memory.ports import ObjectStore
from memory.schemas import Caller, Memory
from memory.store import overviews, statistics
from memory.store.database import Database, Session

SUMMARY_CHARACTERS = 1_500
SENTENCE_CHARACTERS = 240
CHANGES_NOTED = 3
THEMES = 8
CATEGORY_THEMES = 3

# The full stop, exclamation and question mark of scripts without spaces end a sentence by themselves.
_WIDE_ENDS = "\u3002\uff01\uff1f"
_SENTENCE_END = re.compile(rf"(?<=[.!?])\s+|(?<=[{_WIDE_ENDS}])|\n+")
_WORD = re.compile(r"[^\W\d_][\w'-]{2,29}")


class Overviews:
    """Reads a whole collection and says something short about it; an unknown one is empty."""

    def __init__(self, database: Database, grants: Grants, objects: ObjectStore) -> None:
        self._database = database
        self._grants = grants
        self._objects = objects

    def health(self, caller: Caller, collection: str, stale_days: int) -> Health | NoHealth:
        """Raises Forbidden."""
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            collection_id = reach.readable(session, collection)
            if collection_id is None:
                return NoHealth()
            return overviews.health(session, collection_id, stale_before(stale_days))

    def contradictions(
        self, caller: Caller, collection: str, *, limit: int, offset: int
    ) -> tuple[list[Contradiction], int]:
        """A page of pairs, newest first, and how many there are in all. Raises Forbidden."""
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            collection_id = reach.readable(session, collection)
            if collection_id is None:
                return [], 0
            found, total = overviews.contradictions(session, collection_id, limit=limit, offset=offset)
        return [
            pair.model_copy(
                update={
                    "current": linked(pair.current, self._objects),
                    "superseded": linked(pair.superseded, self._objects),
                }
            )
            for pair in found
        ], total

    def summary(self, caller: Caller, collection: str, limit: int) -> Summary:
        """Made of the first sentences of the strongest memories, word by word. Raises Forbidden."""
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            collection_id = reach.readable(session, collection)
            strongest = [] if collection_id is None else overviews.strongest(session, collection_id, limit)
            changed: list[Contradiction] = []
            themes: list[str] = []
            if collection_id is not None and strongest:
                changed, _ = overviews.contradictions(session, collection_id, limit=CHANGES_NOTED, offset=0)
                themes = _themes(session, collection_id, strongest)
        return Summary(
            summary=_text(strongest, changed),
            themes=themes,
            based_on=len(strongest),
            generated_at=datetime.now(UTC),
            method="extractive",
            cached=False,
        )


def _text(strongest: Sequence[Memory], changed: Sequence[Contradiction]) -> str:
    """First sentences, strongest memory first, as many as there is room for beside what changed."""
    notes = [f"Changed: {_first_sentence(pair.current)} Before: {_first_sentence(pair.superseded)}" for pair in changed]
    room = SUMMARY_CHARACTERS - sum(len(note) + 1 for note in notes)
    sentences: dict[str, None] = {}
    for memory in strongest:
        sentence = _first_sentence(memory)
        if sentence in sentences:
            continue
        if len(sentence) > room:
            break
        sentences[sentence] = None
        room -= len(sentence) + 1
    return "\n".join(part for part in (" ".join(sentences), *notes) if part)


def _first_sentence(memory: Memory) -> str:
    """With a mark at its end, so that it can stand in a row with others."""
    sentence = " ".join(_SENTENCE_END.split(memory.text.strip(), maxsplit=1)[0].split())
    if len(sentence) > SENTENCE_CHARACTERS:
        return sentence[: SENTENCE_CHARACTERS - 1].rstrip() + "…"
    return sentence if sentence[-1:] in f".!?…{_WIDE_ENDS}" else f"{sentence}."


def _themes(session: Session, collection_id: UUID, strongest: Sequence[Memory]) -> list[str]:
    """The commonest categories, then the words that tell most: in many of these memories, in few of the others."""
    categories = Counter(memory.category for memory in strongest if memory.category != "other")
    themes = [category for category, _ in categories.most_common(CATEGORY_THEMES)]
    forms: dict[str, Counter[str]] = defaultdict(Counter)
    words_of = [set(_WORD.findall(memory.text.lower())) for memory in strongest]
    stems = overviews.stems(session, sorted(set().union(*words_of)))
    holding: Counter[str] = Counter()
    for words in words_of:
        for word in words & stems.keys():
            forms[stems[word]][word] += 1
        holding.update({stems[word] for word in words & stems.keys()})
    likely = [stem for stem, _ in sorted(holding.items(), key=lambda item: (-item[1], item[0]))[: 10 * THEMES]]
    counts = statistics.count(session, [collection_id], likely)

    def telling(stem: str) -> tuple[float, str]:
        everywhere = max(counts.holding.get(stem, 0.0), 1.0)
        return -holding[stem] * math.log(1 + counts.documents / everywhere), stem

    taken = {theme.casefold() for theme in themes}
    for stem in sorted(likely, key=telling):
        # The commonest form of a word stands for all of them.
        word = min(forms[stem], key=lambda form: (-forms[stem][form], form))
        if len(themes) < THEMES and word not in taken:
            themes.append(word)
    return themes
