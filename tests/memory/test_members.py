"""Files inside of dropped files become files of the same batch, once, within limits, and name what they came from."""

from collections.abc import Callable

import pytest

from memory import members as rules
from memory import quotas
from memory.account_schemas import Limits
from memory.drop_schemas import BatchProgress, DropOptions
from memory.errors import RejectedFile, Unavailable
from memory.ports import Block, Document, Member
from memory.schemas import SearchRequest
from memory.services import Services
from memory.store import ingesting as store
from tests.memory.conftest import Connection, Making, Tenant
from tests.memory.dropping import ScriptedReader, incoming, memories_of, objects_of, open_one, work

ZIP = "application/zip"


def archive(*members: Member, note: str = "files", metadata: dict[str, str] | None = None) -> Document:
    return Document(content_type=ZIP, blocks=[], note=note, members=list(members), metadata=metadata or {})


def answers(documents: dict[str, Document]) -> Callable[[str], Document]:
    """What each file holds; one of no other name is its own name as text."""
    return lambda name: documents.get(name) or Document(content_type="text/plain", blocks=[Block(text=f"Of {name}.")])


def drop(house: Services, tenant: Tenant, name: str = "docs.zip") -> BatchProgress:
    return work(house, tenant.caller, open_one(house, tenant.caller, name)[0])


def test_members_become_files_of_the_batch_after_their_parent(make: Making, tenant: Tenant) -> None:
    held = archive(Member("in/b.txt", b"b"), Member("../../a.txt", b"a"), note="2 files")
    house = make(reader=ScriptedReader(answers({"docs.zip": held})))
    progress = drop(house, tenant)

    assert (progress.total, progress.done, progress.complete) == (3, 3, True)
    assert [(file.filename, file.path, file.parent) for file in progress.files] == [
        ("docs.zip", None, None),
        ("b.txt", "in/b.txt", "docs.zip"),
        ("a.txt", None, "docs.zip"),
    ]
    assert progress.files[0].note == "2 files"
    assert [file.chunks for file in progress.files] == [1, 1, 1]
    results = house.batches.results(tenant.caller, progress.batch_id).results
    assert [(result.filename, result.parent) for result in results][1] == ("b.txt", "docs.zip")
    (hit,) = house.search.search(tenant.caller, "garden", SearchRequest(query="Of b.txt.", limit=1)).results
    assert (hit.metadata["path"], hit.metadata["parent"], hit.metadata["filename"]) == ("in/b.txt", "docs.zip", "b.txt")
    assert hit.metadata["file_id"] == hit.sequence != hit.metadata["parent_id"]
    assert [(image.filename, image.size) for image in hit.images] == [("b.txt", 1)]


def test_an_archive_is_found_by_its_name_alone(make: Making, tenant: Tenant) -> None:
    house = make(reader=ScriptedReader(answers({"docs.zip": archive(Member("a.txt", b"a"))})))
    progress = drop(house, tenant)
    memory = house.memories.get(tenant.caller, "garden", progress.files[0].memory_ids[0])
    assert memory.text == "docs.zip"


def test_attachments_name_their_mail_and_keep_what_is_their_own(make: Making, tenant: Tenant) -> None:
    mail = archive(Member("offer.txt", b"x"), Member("inner.eml", b"y"), metadata={"subject": "Forks", "from": "c@d.e"})
    inner = archive(Member("deep.txt", b"z"), metadata={"subject": "Re: Forks"})
    house = make(reader=ScriptedReader(answers({"mail.eml": mail, "inner.eml": inner})))
    progress = drop(house, tenant, "mail.eml")
    found = {
        file.filename: house.memories.get(tenant.caller, "garden", file.memory_ids[0]).metadata
        for file in progress.files
    }
    assert (found["offer.txt"]["subject"], found["offer.txt"]["parent"]) == ("Forks", "mail.eml")
    assert found["inner.eml"]["subject"] == "Re: Forks"
    assert (found["deep.txt"]["subject"], found["deep.txt"]["from"]) == ("Re: Forks", "c@d.e")
    assert found["deep.txt"]["parent"] == "inner.eml"


def test_a_member_that_fails_leaves_the_others(make: Making, tenant: Tenant) -> None:
    held = archive(
        Member("big", b"", "larger than 10 MB"), Member("empty", b""), Member("bad", b"b"), Member("a", b"a")
    )

    def answer(name: str) -> Document:
        if name == "bad":
            raise RejectedFile("it is damaged")
        return answers({"docs.zip": held})(name)

    progress = drop(make(reader=ScriptedReader(answer)), tenant)
    assert {file.filename: file.error for file in progress.files} == {
        "docs.zip": None,
        "big": "larger than 10 MB",
        "empty": "empty file",
        "bad": "it is damaged",
        "a": None,
    }
    assert (progress.done, progress.failed) == (2, 3)


def test_an_archive_in_itself_ends(make: Making, tenant: Tenant) -> None:
    house = make(reader=ScriptedReader(lambda name: archive(Member(f"{name}.zip", name.encode()))))
    progress = drop(house, tenant, "quine.zip")
    assert progress.total == 1 + rules.MAX_DEPTH
    assert progress.files[-1].note == "files; not read: it lies too deep inside of other files"


def test_the_whole_family_of_a_file_is_limited(make: Making, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_FAMILY_FILES", 4)
    documents = {"docs.zip": archive(Member("one.zip", b"1"), Member("two.zip", b"2"))}
    documents |= {
        name: archive(*(Member(f"{name}{n}", f"{name}{n}".encode()) for n in range(3)))
        for name in ("one.zip", "two.zip")
    }
    progress = drop(make(reader=ScriptedReader(answers(documents))), tenant)
    assert (progress.total, progress.done) == (5, 5)
    assert [file.note for file in progress.files[1:3]] == [
        "files; 1 of them not taken: there are too many",
        "files; 3 of them not taken: there are too many",
    ]


def test_the_bytes_of_a_family_are_limited(make: Making, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_FAMILY_BYTES", 10)
    held = archive(Member("a", b"123456"), Member("b", b"654321"))
    progress = drop(make(reader=ScriptedReader(answers({"docs.zip": held}))), tenant)
    assert [file.filename for file in progress.files] == ["docs.zip", "a"]


def test_names_of_members_are_made_harmless(make: Making, tenant: Tenant) -> None:
    names = ["../../etc/passwd", "C:\\x\\y.txt", "a\0\x1b[31m.txt", "x" * 4096 + ".txt", "", "in/\u202egnp.exe"]
    held = archive(*(Member(name, name.encode() or b"-") for name in names))
    progress = drop(make(reader=ScriptedReader(answers({"docs.zip": held}))), tenant)
    shown = [file.filename for file in progress.files[1:]]
    assert shown == ["passwd", "y.txt", "a[31m.txt", "x" * 251 + ".txt", "file", "gnp.exe"]
    assert [file.path for file in progress.files[1:]][:2] == ["etc/passwd", "C:/x/y.txt"]


def test_a_crash_in_the_middle_doubles_nothing(make: Making, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    held = archive(*(Member(f"{n}.txt", b"%d" % n) for n in range(3)))
    house = make(reader=ScriptedReader(answers({"docs.zip": held})))
    batch_id, file_id = open_one(house, tenant.caller, "docs.zip")
    put, calls = house.objects.put, []

    def failing_put(key: str, *args: object, **options: object) -> object:
        calls.append(key)
        if len(calls) == 2:
            raise Unavailable("the store is away")
        return put(key, *args, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(house.objects, "put", failing_put)
        with pytest.raises(Unavailable):
            house.ingesting.read(tenant.id, file_id)
    house.ingesting.read(tenant.id, file_id)
    house.ingesting.read(tenant.id, file_id)
    progress = work(house, tenant.caller, batch_id)
    assert (progress.total, progress.done) == (4, 4)
    assert memories_of(house, tenant.caller) == 4
    assert len(objects_of(house, tenant.caller)) == 4


@pytest.fixture
def limited(tenant: Tenant, as_owner: Connection, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives the tenant's account so much room."""
    as_owner.execute("update tenants set tier = 'free' where id = %s", [tenant.id])

    def limit(**most: int) -> None:
        monkeypatch.setitem(quotas.TIERS, "free", Limits(max_file_bytes=quotas.MAX_FILE_BYTES, **most))

    return limit


@pytest.mark.parametrize("most", [{"max_storage_bytes": 20}, {"max_memories": 1}])
def test_for_members_there_must_be_room_in_the_account(
    make: Making, tenant: Tenant, limited: Callable[..., None], most: dict[str, int]
) -> None:
    held = archive(Member("a.txt", b"a" * 10), Member("b.txt", b"b" * 10), Member("empty", b""))
    house = make(reader=ScriptedReader(answers({"docs.zip": held})))
    batch_id, _ = open_one(house, tenant.caller, "docs.zip", b"zip")
    limited(**most)

    progress = work(house, tenant.caller, batch_id)

    assert [(file.filename, file.status) for file in progress.files] == [("docs.zip", "failed")]
    assert str(progress.files[0].error).startswith("the account has no room for the 2 files in it, 20 bytes: the tier")
    assert len(objects_of(house, tenant.caller)) == 1

    limited(max_storage_bytes=23, max_memories=3)
    assert house.batches.retry(tenant.caller, batch_id).queued == 1
    again = work(house, tenant.caller, batch_id)
    assert [(file.filename, file.status) for file in again.files] == [
        ("docs.zip", "done"),
        ("a.txt", "done"),
        ("b.txt", "done"),
        ("empty", "failed"),
    ]


def test_who_takes_the_room_meanwhile_is_heeded(
    make: Making, tenant: Tenant, limited: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = archive(Member("a.txt", b"a" * 10), Member("b.txt", b"b" * 10))
    house = make(reader=ScriptedReader(answers({"docs.zip": held})))
    batch_id, _ = open_one(house, tenant.caller, "docs.zip", b"zip")
    limited(max_storage_bytes=23)
    put = house.objects.put

    def put_late(key: str, *args: object, **options: object) -> object:
        limited(max_storage_bytes=22)
        return put(key, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(house.objects, "put", put_late)
    progress = work(house, tenant.caller, batch_id)

    assert [(file.filename, file.status) for file in progress.files] == [("docs.zip", "failed")]
    assert len(objects_of(house, tenant.caller)) == 1


def test_a_slower_attempt_takes_nothing_from_a_quicker_one(make: Making, tenant: Tenant) -> None:
    held = archive(Member("a.txt", b"a"))
    calls: list[str] = []

    def answer(name: str) -> Document:
        calls.append(name)
        if calls == ["docs.zip"]:
            # Meanwhile another worker does it all.
            work(house, tenant.caller, batch_id)
        return answers({"docs.zip": held})(name)

    house = make(reader=ScriptedReader(answer))
    batch_id, file_id = open_one(house, tenant.caller, "docs.zip")
    house.ingesting.read(tenant.id, file_id)

    (member,) = [file for file in house.batches.progress(tenant.caller, batch_id).files if file.parent]
    memory = house.memories.get(tenant.caller, "garden", member.memory_ids[0])
    key = f"{tenant.id}/files/{memory.metadata['file_id']}"
    assert house.objects.get(key) == b"a"


def test_members_of_a_file_that_ended_meanwhile_are_not_taken(make: Making, tenant: Tenant) -> None:
    def answer(_name: str) -> Document:
        with house.database.transaction(tenant.id) as session:
            store.fail(session, file_id, "cancelled")
        return archive(Member("a.txt", b"a"))

    house = make(reader=ScriptedReader(answer))
    batch_id, file_id = open_one(house, tenant.caller, "docs.zip")
    house.ingesting.read(tenant.id, file_id)
    assert [file.error for file in house.batches.progress(tenant.caller, batch_id).files] == ["cancelled"]


def test_a_member_that_is_there_already_is_no_second_memory(make: Making, tenant: Tenant) -> None:
    held = archive(Member("a.txt", b"same"), Member("copy of a.txt", b"same"))
    house = make(reader=ScriptedReader(answers({"docs.zip": held})))
    progress = drop(house, tenant)
    assert [file.status for file in progress.files] == ["done", "done", "duplicate"]
    assert progress.files[1].memory_ids == progress.files[2].memory_ids


def test_two_archives_of_one_batch_keep_their_order(make: Making, tenant: Tenant) -> None:
    documents = {"a.zip": archive(Member("1", b"1")), "b.zip": archive(Member("2", b"2"))}
    house = make(reader=ScriptedReader(answers(documents)))
    opened = house.drops.open(
        tenant.caller, "garden", [incoming("a.zip", b"a"), incoming("b.zip", b"b")], DropOptions()
    )
    progress = work(house, tenant.caller, opened.batch_id)
    assert [file.filename for file in progress.files] == ["a.zip", "1", "b.zip", "2"]
