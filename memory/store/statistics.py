"""Term statistics of collections: what inverse document frequency is made of."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from memory.store import lexemes

_SAMPLE = 10_000


@dataclass(frozen=True)
class TermCounts:
    """`documents`: how many memories; `holding`: in how many of them each lexeme stands (sampled ones scaled up).

    `counted_now`: the collections of which nothing is kept, and their sizes.
    """

    documents: float = 0.0
    holding: dict[str, float] = field(default_factory=dict)
    counted_now: dict[UUID, int] = field(default_factory=dict)


def query_lexemes(session: Session, query: str, *, stop_words: bool = False) -> list[str]:
    """What a query looks for: its stemmed lexemes, its exact terms and its names.

    `stop_words`: a query of nothing else looks for those; beside other words they say nothing.
    """
    row = session.execute(
        text(
            f"""
            select tsvector_to_array(to_tsvector('english', :query)) as stemmed,
                   array(select '{lexemes.EXACT_PREFIX}' || name from unnest(cast(:names as text[])) as name
                         where ts_lexize('english_stem', name) not in ('{{}}', array[name])) as names,
                   array(select '{lexemes.EXACT_PREFIX}' || lexeme from unnest(to_tsvector('simple', :query))
                         where ts_lexize('english_stem', lexeme) = '{{}}') as stop_words
            """
        ),
        {"query": lexemes.searchable(query), "names": lexemes.wanted_names(query)},
    ).one()
    found = [*row.stemmed, *row.names, *lexemes.exact_terms(query), *lexemes.wanted_character_terms(query)]
    return found if found or not stop_words else list(row.stop_words)


def phrase_lexemes(session: Session, phrase: str) -> list[str]:
    """What a memory holds in which the phrase stands: all of its words, also those that say nothing."""
    row = session.execute(
        text(
            f"""
            select tsvector_to_array(to_tsvector('english', :phrase)) as stemmed,
                   array(select '{lexemes.EXACT_PREFIX}' || lexeme from unnest(to_tsvector('simple', :phrase))
                         where ts_lexize('english_stem', lexeme) = '{{}}') as stop_words
            """
        ),
        {"phrase": lexemes.searchable(phrase)},
    ).one()
    found = [lexeme for lexeme in row.stemmed if not lexemes.is_unspaced(lexeme)]
    return [*found, *row.stop_words, *lexemes.wanted_character_terms(phrase)]


def count(session: Session, collection_ids: Sequence[UUID], wanted: Sequence[str]) -> TermCounts:
    """Counts for the lexemes over these collections: kept ones where they are kept, the others counted now."""
    kept = session.execute(
        text(
            """
            select s.collection_id, s.documents, s.sampled,
                   (select jsonb_object_agg(t.lexeme, t.documents) from collection_terms t
                    where t.tenant_id = s.tenant_id and t.collection_id = s.collection_id
                      and t.lexeme = any (:lexemes)) as terms
            from collection_statistics s where s.collection_id = any (:collection_ids)
            """
        ),
        {"lexemes": list(wanted), "collection_ids": list(collection_ids)},
    ).all()
    documents = 0.0
    holding = dict.fromkeys(wanted, 0.0)
    for row in kept:
        documents += row.documents
        for lexeme, sampled in (row.terms or {}).items():
            holding[lexeme] += sampled * row.documents / row.sampled
    counted_now = _documents(session, set(collection_ids) - {row.collection_id for row in kept})
    if counted_now:
        documents += sum(counted_now.values())
        rows = session.execute(
            text("select * from count_terms(cast(:terms as tsquery[]), :collection_ids)"),
            {"terms": [lexemes.quoted(lexeme) for lexeme in wanted], "collection_ids": list(counted_now)},
        )
        for row in rows:
            holding[wanted[row.ordinal - 1]] += row.documents
    return TermCounts(documents, holding, counted_now)


def count_documents(session: Session, collection_id: UUID) -> int:
    return _documents(session, [collection_id]).get(collection_id, 0)


def _documents(session: Session, collection_ids: Collection[UUID]) -> dict[UUID, int]:
    """Sizes of the collections that hold anything."""
    if not collection_ids:
        return {}
    rows = session.execute(
        text(
            """
            select collection_id, count(*) as documents from memory_terms
            where collection_id = any (:collection_ids) group by 1
            """
        ),
        {"collection_ids": list(collection_ids)},
    )
    return {row.collection_id: row.documents for row in rows}


def kept_documents(session: Session, collection_id: UUID) -> int | None:
    """How many memories the kept statistics speak of; None when none are kept."""
    kept: int | None = session.execute(
        text("select documents from collection_statistics where collection_id = :id"), {"id": collection_id}
    ).scalar_one_or_none()
    return kept


def refresh(session: Session, tenant_id: UUID, collection_id: UUID, documents: int) -> None:
    """Counts the terms of at most 10,000 memories of the collection anew and keeps the result."""
    values = {"tenant_id": tenant_id, "collection_id": collection_id, "documents": documents}
    # Taken first: two processes that refresh at once go one after the other.
    session.execute(
        text(
            """
            insert into collection_statistics (tenant_id, collection_id, documents, sampled, refreshed_at)
            values (:tenant_id, :collection_id, :documents, least(:documents, :sample), now())
            on conflict (tenant_id, collection_id) do update
            set documents = excluded.documents, sampled = excluded.sampled, refreshed_at = excluded.refreshed_at
            """
        ),
        {**values, "sample": _SAMPLE},
    )
    session.execute(text("delete from collection_terms where collection_id = :collection_id"), values)
    session.execute(
        text(
            """
            insert into collection_terms (tenant_id, collection_id, lexeme, documents)
            select :tenant_id, :collection_id, lexeme, count(*)
            from (select tsv from memory_terms where collection_id = :collection_id limit :sample) as sampled,
                 unnest(tsvector_to_array(tsv)) as lexeme
            group by lexeme
            """
        ),
        {**values, "sample": _SAMPLE},
    )


def forget(session: Session, collection_id: UUID) -> None:
    """Drops what is kept: a collection that has become small is counted live."""
    values = {"id": collection_id}
    # In the order in which `refresh` takes them.
    session.execute(text("delete from collection_statistics where collection_id = :id"), values)
    session.execute(text("delete from collection_terms where collection_id = :id"), values)
