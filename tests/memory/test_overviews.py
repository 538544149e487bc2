"""Health, contradictions and summaries of collections, counted and read by hand."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from memory.curation_schemas import Health, NoHealth
from memory.errors import Forbidden
from memory.overviews import SENTENCE_CHARACTERS, SUMMARY_CHARACTERS
from memory.schemas import Caller, Memory, MemoryCreate
from memory.services import Services
from tests.memory.conftest import Connection, Tenant

NAME = "garden"


def store(house: Services, caller: Caller, text: str, collection: str = NAME, **fields: Any) -> Memory:
    return house.memories.create(caller, collection, MemoryCreate(text=text, **fields))


def change(as_owner: Connection, memory_id: UUID, assignment: str) -> None:
    assert as_owner.execute(f"update memories set {assignment} where id = %s", (memory_id,)).rowcount == 1


def supersede(as_owner: Connection, old: Memory, new: Memory, reason: str, days_ago: int) -> None:
    as_owner.execute(
        "update memories set is_latest = false, superseded_by = %s, superseded_reason = %s, "
        "valid_to = now() - %s where id = %s",
        (new.id, reason, timedelta(days=days_ago), old.id),
    )


# Health


def test_health_counts_what_is_there(house: Services, caller: Caller, as_owner: Connection) -> None:
    memories = [store(house, caller, f"note {number}", category="ab"[number % 2]) for number in range(10)]
    for memory, assignment in zip(
        memories,
        (
            "archived = true",
            "pinned = true, updated_at = now() - interval '99 days'",
            "updated_at = now() - interval '99 days'",
            "updated_at = now() - interval '99 days', archived = true",
            "expires_at = now()",
            "expires_at = now() + interval '1 day'",
            "is_latest = false",
        ),
        strict=False,
    ):
        change(as_owner, memory.id, assignment)

    found = house.overviews.health(caller, NAME, 90)

    assert found == Health(
        total=10,
        current=6,
        archived=2,
        pinned=1,
        stale=1,
        expired=1,
        supersessions=1,
        categories={"a": 2, "b": 4},
        needs_attention=3,
    )
    assert isinstance(found, Health)
    assert found.current == house.collections.get(caller, NAME).memory_count
    assert found.stale == house.curation.find_stale(caller, NAME, 90).would_archive
    older = house.overviews.health(caller, NAME, 100)
    assert isinstance(older, Health)
    assert older.stale == 0


def test_an_unknown_collection_has_no_health(house: Services, caller: Caller) -> None:
    assert house.overviews.health(caller, NAME, 90) == NoHealth()


# Contradictions


def test_a_chain_gives_a_pair_for_each_step_newest_first(house: Services, caller: Caller, as_owner: Connection) -> None:
    google, stripe, own = (store(house, caller, f"works at {place}") for place in ("Google", "Stripe", "their own"))
    supersede(as_owner, google, stripe, "changed jobs", 9)
    supersede(as_owner, stripe, own, "founded a company", 2)

    pairs, total = house.overviews.contradictions(caller, NAME, limit=50, offset=0)

    assert total == 2
    assert [(pair.current.id, pair.superseded.id, pair.reason) for pair in pairs] == [
        (own.id, stripe.id, "founded a company"),
        (stripe.id, google.id, "changed jobs"),
    ]
    assert timedelta(days=1) < datetime.now(UTC) - pairs[0].created_at < timedelta(days=3)
    second, total = house.overviews.contradictions(caller, NAME, limit=1, offset=1)
    assert (second, total) == (pairs[1:], 2)


@pytest.mark.parametrize("side", ["old", "new"])
@pytest.mark.parametrize("fate", ["deleted", "expired", "moved away"])
def test_a_pair_with_a_side_that_is_gone_is_left_out(
    house: Services, caller: Caller, as_owner: Connection, side: str, fate: str
) -> None:
    old, new = store(house, caller, "works at Google"), store(house, caller, "works at Stripe")
    elsewhere = store(house, caller, "elsewhere", "shed")
    supersede(as_owner, old, new, "changed jobs", 1)
    assert house.overviews.contradictions(caller, NAME, limit=50, offset=0)[1] == 1
    gone = old if side == "old" else new
    if fate == "deleted":
        house.memories.delete(caller, NAME, gone.id)
    elif fate == "expired":
        change(as_owner, gone.id, "expires_at = now()")
    else:
        shed = house.collections.get(caller, elsewhere.collection).id
        change(as_owner, gone.id, f"collection_id = '{shed}'")

    assert house.overviews.contradictions(caller, NAME, limit=50, offset=0) == ([], 0)
    assert house.overviews.contradictions(caller, "shed", limit=50, offset=0) == ([], 0)


# Summaries


def test_a_summary_begins_with_what_weighs_most(house: Services, caller: Caller, as_owner: Connection) -> None:
    store(house, caller, "Moss grows on the roof. Nobody minds.", importance=0.3, category="roof")
    store(house, caller, "Bees live in the north garden\nand fly in spring", importance=0.9, category="bees")
    store(house, caller, "Bees dance in the garden! Often.", importance=0.8, category="bees")
    old = store(house, caller, "The garden was a car park.", importance=0.85)
    change(as_owner, old.id, "created_at = now() - interval '300 days'")

    found = house.overviews.summary(caller, NAME, 50)

    assert found.summary == (
        "Bees live in the north garden. Bees dance in the garden! Moss grows on the roof. The garden was a car park."
    )
    assert (found.based_on, found.method, found.cached) == (4, "extractive", False)
    assert found.themes[:2] == ["bees", "roof"]
    assert "garden" in found.themes
    assert not {"the", "in", "other"} & set(found.themes)
    assert len(found.themes) == len(set(found.themes)) <= 8
    assert datetime.now(UTC) - found.generated_at < timedelta(minutes=1)
    assert house.overviews.summary(caller, NAME, 1).summary == "Bees live in the north garden."


def test_a_summary_says_what_has_changed(house: Services, caller: Caller, as_owner: Connection) -> None:
    old, new = store(house, caller, "Works at Google"), store(house, caller, "Works at Stripe")
    supersede(as_owner, old, new, "changed jobs", 1)

    found = house.overviews.summary(caller, NAME, 50)

    assert found.summary == "Works at Stripe.\nChanged: Works at Stripe. Before: Works at Google."
    assert found.based_on == 1


def test_a_summary_stays_short(house: Services, caller: Caller) -> None:
    house.memories.create_many(
        caller, NAME, [MemoryCreate(text=f"{number} {'word ' * 300}and no end") for number in range(40)]
    )
    found = house.overviews.summary(caller, NAME, 200)

    assert SUMMARY_CHARACTERS - SENTENCE_CHARACTERS < len(found.summary) <= SUMMARY_CHARACTERS
    assert found.based_on == 40


def test_what_is_said_twice_stands_once(house: Services, caller: Caller) -> None:
    house.memories.create_many(caller, NAME, [MemoryCreate(text="the same"), MemoryCreate(text="the same")])
    assert house.overviews.summary(caller, NAME, 50).summary == "the same."


@pytest.mark.parametrize("text", ["東京は大きい。人が多い。", "!?", "12 34", "\u200b", "🐝", "a" * 300, "l'été d'été"])
def test_any_text_can_be_summarised(house: Services, caller: Caller, text: str) -> None:
    store(house, caller, text)
    found = house.overviews.summary(caller, NAME, 50)
    assert found.based_on == 1
    assert found.summary


def test_words_that_many_strong_memories_share_are_themes_before_what_is_said_everywhere(
    house: Services, caller: Caller
) -> None:
    house.memories.create_many(
        caller, NAME, [MemoryCreate(text=f"report about number{n}", importance=0.1) for n in range(100)]
    )
    house.memories.create_many(
        caller, NAME, [MemoryCreate(text=f"report about harbours x{n}", importance=0.9) for n in range(10)]
    )
    assert house.overviews.summary(caller, NAME, 10).themes[0] == "harbours"


def test_only_current_memories_are_summarised(house: Services, caller: Caller, as_owner: Connection) -> None:
    for assignment in ("archived = true", "is_latest = false", "expires_at = now()"):
        change(as_owner, store(house, caller, "hidden").id, assignment)
    found = house.overviews.summary(caller, NAME, 50)
    assert (found.summary, found.themes, found.based_on) == ("", [], 0)


def test_an_unknown_collection_has_nothing_to_sum_up(house: Services, caller: Caller) -> None:
    found = house.overviews.summary(caller, NAME, 50)
    assert (found.summary, found.themes, found.based_on, found.method) == ("", [], 0, "extractive")
    assert house.overviews.contradictions(caller, NAME, limit=50, offset=0) == ([], 0)


# Who may


def test_a_restricted_collection_is_closed_to_all_of_them(
    house: Services, tenant: Tenant, as_owner: Connection
) -> None:
    store(house, tenant.caller, "a secret")
    collection_id = house.collections.get(tenant.caller, NAME).id
    as_owner.execute(
        "insert into grants (tenant_id, collection_id, key_id, can_read, can_write) "
        "select tenant_id, %s, id, false, true from keys where tenant_id = %s and is_main",
        (collection_id, tenant.id),
    )
    main = replace(tenant.caller, has_grants=True)
    calls: list[Callable[[], object]] = [
        lambda: house.overviews.health(main, NAME, 90),
        lambda: house.overviews.summary(main, NAME, 50),
        lambda: house.overviews.contradictions(main, NAME, limit=50, offset=0),
        lambda: house.policies.show(main, NAME),
    ]
    for call in calls:
        with pytest.raises(Forbidden):
            call()


def test_another_tenants_collection_is_an_unknown_one(house: Services, new_tenant: Callable[..., Tenant]) -> None:
    mine, theirs = new_tenant().caller, new_tenant().caller
    store(house, mine, f"a secret {uuid4()}")
    assert house.overviews.health(theirs, NAME, 90) == NoHealth()
    assert house.overviews.summary(theirs, NAME, 50).based_on == 0
