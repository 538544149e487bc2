"""Cached answers: right at every moment, whoever has changed what, in one process or several."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from memory.adapters.local_cache import LocalCache
from memory.cache import CachedSearch
from memory.errors import Forbidden
from memory.schemas import MemoryCreate, MemoryPatch, SearchRequest, SearchResponse
from memory.services import Services
from tests.conftest import Tenant
from tests.fakes import WordEmbedder
from tests.memory.conftest import Connection
from tests.memory.processes import Processes, ask, plain_search

_SOON = timedelta(seconds=0.25)


def _texts(answer: SearchResponse) -> list[str]:
    return [hit.text for hit in answer.results]


def test_a_repeated_question_is_answered_without_search(
    processes: Processes, house: Services, words: WordEmbedder, tenant: Tenant
) -> None:
    process, _ = processes
    house.memories.create_many(
        tenant.caller,
        "notes",
        [
            MemoryCreate(text="tea is green", metadata={"a": [1, 2.5, None, {"b": True}]}, importance=0.1 + 0.2),
            MemoryCreate(text="tea or coffee", expires_at=datetime(2999, 1, 1, tzinfo=UTC)),
        ],
    )
    first = process.search(tenant.caller, "notes", ask())
    assert not first.cached
    words.down = True
    try:
        second = process.search(tenant.caller, "notes", ask("  tea ", mode="hybrid"))
    finally:
        words.down = False
    assert second.cached
    assert second.query_embedding_ms == 0
    assert second.search_ms > 0
    assert second.results == first.results
    assert len(second.results) == 2


@pytest.mark.parametrize(
    "other",
    [
        ask("coffee"),
        ask(limit=1),
        ask(min_score=0.9),
        ask(mode="text"),
        ask(category="other"),
        ask(container_tag="x"),
        ask(metadata_filter={"a": 1}),
        ask(include_archived=True),
    ],
)
def test_another_question_is_another(
    processes: Processes, house: Services, tenant: Tenant, other: SearchRequest
) -> None:
    process, _ = processes
    house.memories.create(tenant.caller, "notes", MemoryCreate(text="tea is green"))
    process.search(tenant.caller, "notes", ask())
    assert not process.search(tenant.caller, "notes", other).cached
    assert process.search(tenant.caller, "notes", other).cached


@pytest.mark.parametrize("wish", [ask(rewrite=True), ask(rerank=True)])
def test_the_plain_answer_to_a_wish_for_more_is_not_kept(
    processes: Processes, house: Services, tenant: Tenant, wish: SearchRequest
) -> None:
    process, _ = processes
    house.memories.create(tenant.caller, "notes", MemoryCreate(text="tea is green"))
    for _ in range(2):
        answer = process.search(tenant.caller, "notes", wish)
        assert not answer.cached
        assert _texts(answer) == ["tea is green"]


def test_what_was_asked_of_one_collection_is_no_answer_for_another(
    processes: Processes, house: Services, tenant: Tenant
) -> None:
    process, _ = processes
    house.memories.create(tenant.caller, "one", MemoryCreate(text="tea one"))
    house.memories.create(tenant.caller, "two", MemoryCreate(text="tea two"))
    for collection, texts in (("one", ["tea one"]), ("two", ["tea two"]), (None, ["tea one", "tea two"])):
        for cached in (False, True):
            answer = process.search(tenant.caller, collection, ask(mode="text"))
            assert answer.cached is cached
            assert sorted(_texts(answer)) == texts


def test_an_unknown_collection_is_empty_and_then_it_is_not(
    processes: Processes, house: Services, tenant: Tenant
) -> None:
    process, _ = processes
    for _ in range(2):
        assert process.search(tenant.caller, "later", ask()).results == []
    house.memories.create(tenant.caller, "later", MemoryCreate(text="tea at last"))
    assert _texts(process.search(tenant.caller, "later", ask())) == ["tea at last"]
    house.collections.delete(tenant.caller, "later")
    assert process.search(tenant.caller, "later", ask()).results == []
    house.memories.create(tenant.caller, "later", MemoryCreate(text="tea anew"))
    assert _texts(process.search(tenant.caller, "later", ask())) == ["tea anew"]


def test_a_change_is_seen_by_every_process_at_once(processes: Processes, house: Services, tenant: Tenant) -> None:
    caller = tenant.caller
    made = house.memories.create(caller, "notes", MemoryCreate(text="tea first"))

    def both(*expected: str) -> None:
        for process in processes:
            for collection in ("notes", None):
                assert sorted(_texts(process.search(caller, collection, ask()))) == sorted(expected)
                assert process.search(caller, collection, ask()).cached

    both("tea first")
    house.memories.create(caller, "notes", MemoryCreate(text="tea second"))
    both("tea first", "tea second")
    house.memories.patch(caller, "notes", made.id, MemoryPatch(text="tea third"))
    both("tea third", "tea second")
    house.memories.patch(caller, "notes", made.id, MemoryPatch(importance=0.2))
    both("tea third", "tea second")
    for process in processes:
        shown = process.search(caller, "notes", ask()).results
        assert {hit.text: hit.importance for hit in shown} == {"tea third": 0.2, "tea second": 0.7}
    house.memories.delete(caller, "notes", made.id)
    both("tea second")


def test_callers_share_what_they_may_read_and_nothing_else(
    processes: Processes, house: Services, tenant: Tenant, as_owner: Connection
) -> None:
    process, _ = processes
    house.memories.create(tenant.caller, "open", MemoryCreate(text="tea for all"))
    house.memories.create(tenant.caller, "closed", MemoryCreate(text="tea for one"))
    outsider = replace(tenant.caller, key_id=uuid4(), is_main=False)
    assert len(process.search(tenant.caller, None, ask()).results) == 2
    assert process.search(outsider, None, ask()).cached

    as_owner.execute(
        "insert into grants (tenant_id, collection_id, key_id, can_read, can_write) "
        "select tenant_id, id, %s, true, false from collections where tenant_id = %s and name = 'closed'",
        (tenant.caller.key_id, tenant.id),
    )
    granted, outsider = replace(tenant.caller, has_grants=True), replace(outsider, has_grants=True)
    assert len(process.search(granted, None, ask()).results) == 2
    for _ in range(2):
        assert _texts(process.search(outsider, None, ask())) == ["tea for all"]
        with pytest.raises(Forbidden):
            process.search(outsider, "closed", ask())


def test_two_tenants_never_share_an_answer(
    processes: Processes, house: Services, new_tenant: Callable[[], Tenant]
) -> None:
    process, _ = processes
    for number in range(2):
        tenant = new_tenant()
        house.memories.create(tenant.caller, "notes", MemoryCreate(text=f"tea {number}"))
        answer = process.search(tenant.caller, "notes", ask())
        assert not answer.cached
        assert _texts(answer) == [f"tea {number}"]


def test_time_passes_without_a_write(processes: Processes, house: Services, tenant: Tenant) -> None:
    caller = tenant.caller
    best = MemoryCreate(text="tea", expires_at=datetime.now(UTC) + _SOON)
    house.memories.create_many(caller, "notes", [best, MemoryCreate(text="tea and coffee")])
    asked = ask(limit=1, mode="text")
    before = [process.search(caller, "notes", asked) for process in (*processes, *processes)]
    time.sleep(_SOON.total_seconds() + 0.05)
    for process in processes:
        after = process.search(caller, "notes", asked)
        assert not after.cached or _texts(after) != ["tea"]
        # The next best moves up, and its score is now that of the best.
        assert [(hit.text, hit.score) for hit in after.results] == [("tea and coffee", 1.0)]
        assert process.search(caller, "notes", asked).cached
    assert all(_texts(answer) == ["tea"] for answer in before)


def test_an_answer_without_its_vectors_is_not_kept(
    processes: Processes, house: Services, words: WordEmbedder, tenant: Tenant
) -> None:
    process, _ = processes
    house.memories.create(tenant.caller, "notes", MemoryCreate(text="tea is green"))
    words.down = True
    try:
        for _ in range(2):
            assert not process.search(tenant.caller, "notes", ask()).cached
    finally:
        words.down = False
    healed = process.search(tenant.caller, "notes", ask())
    assert not healed.cached
    assert healed.results[0].vector_score


def test_links_to_files_are_made_anew(
    processes: Processes, house: Services, tenant: Tenant, as_owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, _ = processes
    made = house.memories.create(tenant.caller, "notes", MemoryCreate(text="tea is green"))
    _attach(as_owner, tenant.id, made.id, key=f"{tenant.id}/leaf", filename="leaf.png")
    _attach(as_owner, tenant.id, made.id, key=None, filename="gone.png")
    links: list[str] = []

    def link(key: str, *, filename: str, content_type: str, seconds: int) -> str:
        links.append(f"https://files.test/{key}?{len(links)}&{filename}&{content_type}&{seconds}")
        return links[-1]

    monkeypatch.setattr(house.objects, "url", link)
    for number in range(3):
        answer = process.search(tenant.caller, "notes", ask())
        assert answer.cached is (number > 0)
        leaf, gone = answer.results[0].images
        assert leaf.url == f"https://files.test/{tenant.id}/leaf?{number}&leaf.png&image/png&3600"
        assert (gone.filename, gone.url) == ("gone.png", "")
        assert "leaf?" not in answer.model_dump_json().replace(leaf.url, "")


def test_a_damaged_entry_is_a_miss(house: Services, tenant: Tenant) -> None:
    class Damaged(LocalCache):
        def get(self, key: str) -> bytes | None:
            return b'{"answer": {}}'

    search = CachedSearch(
        plain_search(house), database=house.database, grants=house.grants, objects=house.objects, cache=Damaged()
    )
    house.memories.create(tenant.caller, "notes", MemoryCreate(text="tea is green"))
    for _ in range(2):
        answer = search.search(tenant.caller, "notes", ask())
        assert (answer.cached, _texts(answer)) == (False, ["tea is green"])


def _attach(as_owner: Connection, tenant_id: UUID, memory_id: UUID, *, key: str | None, filename: str) -> None:
    file_id = uuid4()
    as_owner.execute(
        "insert into files (tenant_id, id, filename, content_type, size, sha256, key, status, chunks) "
        "values (%s, %s, %s, 'image/png', 3, '', %s, 'done', 0)",
        (tenant_id, file_id, filename, key),
    )
    as_owner.execute(
        "insert into memory_files (tenant_id, memory_id, file_id, position) values (%s, %s, %s, %s)",
        (tenant_id, memory_id, file_id, 0 if key else 1),
    )
