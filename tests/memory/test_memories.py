"""Memories: what is stored, listed and removed, also when two do it at once."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from memory.adapters.local_cache import LocalCache
from memory.cache import CachedSearch
from memory.embedding import Embedding
from memory.errors import AppError, NotFound, Unavailable
from memory.grants import Grants
from memory.memories import Memories
from memory.schemas import Caller, Memory, MemoryCreate, MemoryFilter, MemoryPatch, SearchRequest
from memory.search import Search
from memory.services import Services
from memory.statistics import Statistics
from memory.store import collections, memories
from memory.store import database as database_module
from memory.store.database import Database
from tests.conftest import DatabaseUrls
from tests.fakes import WordEmbedder
from tests.memory.conftest import Connection, Tenant


@pytest.fixture(autouse=True)
def _calm(words: WordEmbedder) -> Iterator[None]:
    yield
    words.down = False
    words.before_answer = lambda _texts: None


def _texts(house: Services, tenant: Tenant, collection: str = "notes", **wanted: Any) -> list[str]:
    found, total = house.memories.page(tenant.caller, collection, MemoryFilter(**wanted))
    assert total >= len(found)
    return [memory.text for memory in found]


def _bulk(house: Services, tenant: Tenant, *texts: str, collection: str = "notes", **values: Any) -> list[Memory]:
    return house.memories.create_many(tenant.caller, collection, [MemoryCreate(text=text, **values) for text in texts])


# Create


def test_a_memory_is_what_was_sent_and_else_the_defaults(house: Services, tenant: Tenant) -> None:
    before = datetime.now(UTC)
    made = house.memories.create(tenant.caller, "notes", MemoryCreate(text="  tea  "))
    assert (made.text, made.importance, made.category, made.source) == ("tea", 0.7, "other", "api")
    assert (made.collection, made.metadata, made.container_tag, made.images) == ("notes", {}, None, [])
    assert (made.version, made.is_latest, made.pinned, made.archived) == (1, True, False, False)
    assert (made.type, made.sequence, made.position, made.external_id) == (None, None, None, None)
    assert (made.valid_to, made.superseded_by, made.expires_at) == (None, None, None)
    assert made.created_by.id == tenant.caller.key_id
    assert made.created_by.label == "main"
    assert before <= made.created_at <= datetime.now(UTC)
    assert made.created_at == made.updated_at == made.valid_from
    assert house.memories.get(tenant.caller, "notes", made.id) == made


def test_everything_that_was_sent_is_kept(house: Services, tenant: Tenant) -> None:
    sent: dict[str, Any] = {
        "text": "naïve 中文 😀 ' \" \\ % :x",
        "importance": 0.0,
        "category": "c'",
        "source": "s",
        "metadata": {"a": [1, 2.5, None, True, {"b": "'; drop table memories; --"}], "ü %s :x": 10**20},
        "container_tag": "user/1",
        "sequence": "thread",
        "position": -3,
        "expires_at": datetime(2999, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    }
    made = house.memories.create(tenant.caller, "notes", MemoryCreate(**sent))
    found = house.memories.get(tenant.caller, "notes", made.id).model_dump()
    assert {name: found[name] for name in sent} == sent


def test_one_memory_is_three_rows_and_none_when_it_goes(house: Services, tenant: Tenant, as_owner: Connection) -> None:
    made = house.memories.create(tenant.caller, "notes", MemoryCreate(text="tea"))
    house.memories.patch(tenant.caller, "notes", made.id, MemoryPatch(text="coffee"))
    tables = {
        "memories": "id",
        "memory_vectors": "memory_id",
        "memory_terms": "memory_id",
        "memory_versions": "memory_id",
    }

    def rows() -> dict[str, Any]:
        return {
            table: as_owner.execute(f"select count(*) from {table} where {column} = %s", (made.id,)).fetchone()
            for table, column in tables.items()
        }

    assert rows() == dict.fromkeys(tables, (1,))
    house.memories.delete(tenant.caller, "notes", made.id)
    assert rows() == dict.fromkeys(tables, (0,))


def test_a_bulk_answers_in_its_order_and_lists_its_last_first(house: Services, tenant: Tenant) -> None:
    made = _bulk(house, tenant, *(f"number {number}" for number in range(100)))
    assert [memory.text for memory in made] == [f"number {number}" for number in range(100)]
    assert len({memory.id for memory in made}) == len({memory.created_at for memory in made}) == 100
    _bulk(house, tenant, "later")
    assert _texts(house, tenant, limit=3) == ["later", "number 99", "number 98"]


def test_a_bulk_is_stored_whole_or_not_at_all(house: Services, tenant: Tenant) -> None:
    broken = MemoryCreate.model_construct(**{**MemoryCreate(text="b").model_dump(), "text": "b\x00"})
    with pytest.raises(Exception, match="NUL"):
        house.memories.create_many(tenant.caller, "notes", [MemoryCreate(text="a"), broken])
    assert house.collections.page(tenant.caller, limit=10, offset=0) == ([], 0)


def test_without_the_embedder_nothing_is_stored_nor_made(house: Services, tenant: Tenant, words: WordEmbedder) -> None:
    words.down = True
    with pytest.raises(Unavailable):
        _bulk(house, tenant, "tea")
    assert house.collections.page(tenant.caller, limit=10, offset=0) == ([], 0)


# List


def test_pages_show_everything_once_pinned_first(house: Services, tenant: Tenant, as_owner: Connection) -> None:
    made = _bulk(house, tenant, *(f"number {number}" for number in range(23)))
    # The same moment for all: then the id decides, and still nothing is shown twice.
    as_owner.execute(
        "update memories set created_at = now(), pinned = text in ('number 3', 'number 9') where tenant_id = %s",
        (tenant.id,),
    )
    seen: list[Memory] = []
    for offset in range(0, 30, 5):
        page, total = house.memories.page(tenant.caller, "notes", MemoryFilter(limit=5, offset=offset))
        assert total == 23
        seen += page
    assert [memory.id for memory in seen] == [
        *sorted((made[3].id, made[9].id), reverse=True),
        *sorted((memory.id for number, memory in enumerate(made) if number not in (3, 9)), reverse=True),
    ]
    assert house.memories.page(tenant.caller, "notes", MemoryFilter(offset=2**31 - 1)) == ([], 23)
    with house.database.transaction(tenant.id) as session:
        collection_id = collections.find_id(session, "notes")
        assert collection_id is not None
        # An index that is in that order hides what the question leaves open.
        session.connection().exec_driver_sql("set local enable_indexscan = off; set local enable_bitmapscan = off")
        found, _ = memories.listed(session, collection_id, MemoryFilter(limit=23))
    assert [memory.id for memory in found] == [memory.id for memory in seen]


def test_a_listing_shows_what_is_current_unless_asked(house: Services, tenant: Tenant, as_owner: Connection) -> None:
    _bulk(house, tenant, "current", "archived", "superseded", "expired", "both")
    for text, fate in (
        ("archived", "archived = true"),
        ("superseded", "is_latest = false, valid_to = now()"),
        ("expired", "expires_at = now()"),
        ("both", "archived = true, is_latest = false"),
    ):
        as_owner.execute(f"update memories set {fate} where tenant_id = %s and text = %s", (tenant.id, text))
    assert _texts(house, tenant) == ["current"]
    assert _texts(house, tenant, include_archived=True) == ["archived", "current"]
    assert _texts(house, tenant, include_superseded=True) == ["superseded", "current"]
    assert _texts(house, tenant, include_archived=True, include_superseded=True) == [
        "both",
        "superseded",
        "archived",
        "current",
    ]
    assert house.collections.get(tenant.caller, "notes").memory_count == 1


def test_a_listing_is_narrowed_by_tag_and_category(house: Services, tenant: Tenant) -> None:
    _bulk(house, tenant, "plain")
    _bulk(house, tenant, "tagged", container_tag="a", category="x")
    _bulk(house, tenant, "other tag", container_tag="A", category="x")
    assert _texts(house, tenant) == ["other tag", "tagged", "plain"]
    assert _texts(house, tenant, container_tag="a") == ["tagged"]
    assert _texts(house, tenant, category="x") == ["other tag", "tagged"]
    assert _texts(house, tenant, category="x", container_tag="a") == ["tagged"]
    assert _texts(house, tenant, category="' or true --") == []
    assert house.memories.page(tenant.caller, "notes", MemoryFilter(category="x", limit=1))[1] == 2


def test_an_unknown_collection_lists_nothing_and_is_not_made(house: Services, tenant: Tenant) -> None:
    assert house.memories.page(tenant.caller, "notes", MemoryFilter()) == ([], 0)
    assert house.collections.page(tenant.caller, limit=10, offset=0) == ([], 0)


# Get


def test_by_id_a_memory_is_found_in_its_own_collection_of_its_own_tenant(
    house: Services, new_tenant: Callable[..., Tenant]
) -> None:
    mine, other = new_tenant(), new_tenant()
    made = house.memories.create(mine.caller, "notes", MemoryCreate(text="tea"))
    house.memories.create(mine.caller, "others", MemoryCreate(text="tea"))
    house.memories.create(other.caller, "notes", MemoryCreate(text="tea"))
    for tenant, collection, memory_id in (
        (mine, "others", made.id),
        (mine, "unknown", made.id),
        (other, "notes", made.id),
        (mine, "notes", uuid4()),
    ):
        acts: list[Callable[[Caller, str, UUID], object]] = [
            house.memories.get,
            house.memories.delete,
            lambda caller, name, id_: house.memories.patch(caller, name, id_, MemoryPatch(text="x")),
            lambda caller, name, id_: house.memories.patch(caller, name, id_, MemoryPatch()),
        ]
        for act in acts:
            with pytest.raises(NotFound):
                act(tenant.caller, collection, memory_id)
    assert house.memories.get(mine.caller, "notes", made.id) == made


def test_superseded_and_archived_are_found_by_id_and_expired_are_gone(
    house: Services, tenant: Tenant, as_owner: Connection
) -> None:
    for fate in ("archived = true", "is_latest = false", "superseded_by = gen_random_uuid()"):
        made = house.memories.create(tenant.caller, "notes", MemoryCreate(text="tea"))
        as_owner.execute(f"update memories set {fate} where id = %s", (made.id,))
        assert house.memories.get(tenant.caller, "notes", made.id).text == "tea"
    gone = house.memories.create(
        tenant.caller, "notes", MemoryCreate(text="gone", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    )
    with pytest.raises(NotFound):
        house.memories.get(tenant.caller, "notes", gone.id)
    with pytest.raises(NotFound):
        house.memories.patch(tenant.caller, "notes", gone.id, MemoryPatch(importance=1))
    with pytest.raises(NotFound):
        house.memories.delete(tenant.caller, "notes", gone.id)


# Delete


def test_the_second_deletion_finds_nothing(house: Services, tenant: Tenant) -> None:
    made = house.memories.create(tenant.caller, "notes", MemoryCreate(text="tea"))
    house.memories.delete(tenant.caller, "notes", made.id)
    for act in (house.memories.get, house.memories.delete):
        with pytest.raises(NotFound):
            act(tenant.caller, "notes", made.id)
    assert _texts(house, tenant) == []


def test_of_deletions_at_once_one_is_answered(house: Services, tenant: Tenant) -> None:
    for _ in range(5):
        made = house.memories.create(tenant.caller, "notes", MemoryCreate(text="tea"))
        together = threading.Barrier(6)

        def delete(_number: int, memory_id: UUID = made.id, together: threading.Barrier = together) -> str:
            together.wait()
            try:
                house.memories.delete(tenant.caller, "notes", memory_id)
            except AppError as error:
                return type(error).__name__
            return "deleted"

        with ThreadPoolExecutor(6) as pool:
            assert sorted(pool.map(delete, range(6))) == ["NotFound"] * 5 + ["deleted"]


# One connection


@pytest.fixture
def narrow(database: DatabaseUrls, house: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """Services whose pool holds a single connection, and an embedder that needs it while it is asked."""
    monkeypatch.setattr(database_module, "_WAIT_FOR_CONNECTION_SECONDS", 1)
    only = Database(database.app_url, pool_size=1)
    words = WordEmbedder()
    embedding = Embedding(only, words)
    statistics = Statistics(only)
    statistics.close()

    def use_the_connection(_texts: Sequence[str]) -> None:
        with only.across():
            pass

    words.before_answer = use_the_connection
    yield Services(
        **{
            **vars(house),
            "database": only,
            "accounts": type(house.accounts)(only, house.key_use, b"salt"),
            "memories": Memories(only, Grants(only), embedding, house.objects, statistics),
            "search": CachedSearch(
                Search(only, embedding, house.objects, statistics),
                database=only,
                grants=Grants(only),
                objects=house.objects,
                cache=LocalCache(),
            ),
        }
    )
    only.close()


def test_nobody_waits_for_the_embedder_or_a_second_connection_while_holding_one(narrow: Services) -> None:
    caller = narrow.accounts.authenticate(narrow.accounts.create_tenant(email="a@example.org").api_key)
    # First of all, when nothing is known yet about the database.
    assert narrow.search.search(caller, None, SearchRequest(query="tea")).results == []
    made = narrow.memories.create(caller, "notes", MemoryCreate(text="tea"))
    assert narrow.memories.patch(caller, "notes", made.id, MemoryPatch(text="coffee")).text == "coffee"
    assert len(narrow.search.search(caller, "notes", SearchRequest(query="coffee")).results) == 1
    narrow.memories.delete(caller, "notes", made.id)
