"""Uploads past us: links under which clients put files into the store by themselves, and what they have put there."""

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO
from uuid import UUID, uuid4

from memory import quotas
from memory.collections import remove_objects
from memory.drop_schemas import (
    DropOptions,
    KeyRejected,
    UploadDone,
    UploadLink,
    UploadLinks,
    UploadRefused,
    UploadsAccepted,
    UploadWanted,
)
from memory.drops import Drops
from memory.errors import BadRequest, Forbidden, NotFound
from memory.filenames import clean_content_type, clean_filename
from memory.grants import Grants
from memory.intake import Intake, StoredFile, Taking, too_large
from memory.ports import ObjectStore
from memory.schemas import Caller
from memory.store import changes, files
from memory.store.database import Database

LINK_SECONDS = 3600
_AT_ONCE = 4
_KEY = re.compile(r"([0-9a-f-]{36})/uploads/([0-9a-f-]{36})", re.ASCII)
_NOT_YOURS = "not a key that was given to you"
_NOTHING = "nothing was uploaded under this key"
_USED = "this key was used before"


class Uploads:
    """The id in a key becomes the id of the file, so that each key counts once."""

    def __init__(self, database: Database, grants: Grants, objects: ObjectStore, intake: Intake, drops: Drops) -> None:
        self._database = database
        self._grants = grants
        self._objects = objects
        self._intake = intake
        self._drops = drops

    def presign(self, caller: Caller, collection: str, wanted: Sequence[UploadWanted]) -> UploadLinks:
        """A link for each file that is not too large. Raises Forbidden, also when there is no room for them."""
        reach = self._grants.reach(caller)
        fitting = [file for file in wanted if file.size <= quotas.MAX_FILE_BYTES]
        with self._database.transaction(caller.tenant_id) as session:
            reach.changeable(session, collection)
            quotas.room_for_files(session, caller, sum(file.size for file in fitting))
            changes.record(session, caller, "drop.presign", f"{len(fitting)} uploads")
        return UploadLinks(uploads=[self._link(caller.tenant_id, file) for file in wanted])

    def complete(
        self, caller: Caller, collection: str, done: Sequence[UploadDone], options: DropOptions
    ) -> UploadsAccepted:
        """Opens a drop of what was uploaded. Raises Forbidden, Unavailable; then the keys can still be used."""
        self._grants.require_write(caller, collection)
        ids = [_file_id(caller.tenant_id, one.key) for one in done]
        with self._database.transaction(caller.tenant_id) as session:
            used = files.known(session, [file_id for file_id in ids if file_id is not None])
        with self._intake.of(caller.tenant_id) as taking, ThreadPoolExecutor(_AT_ONCE) as pool:
            outcomes = list(
                pool.map(lambda each: self._taken(taking, each[0], each[1], used), zip(_first(ids), done, strict=True))
            )
            stored = [one for one in outcomes if isinstance(one, StoredFile)]
            opened, late = self._drops.open_uploaded(caller, collection, stored, options)
        remove_objects(self._objects, [_key(caller.tenant_id, file.id) for file in stored if file.id not in late])
        rejected = [
            KeyRejected(key=one.key, reason=_USED if isinstance(outcome, StoredFile) else outcome)
            for one, outcome in zip(done, outcomes, strict=True)
            if not isinstance(outcome, StoredFile) or outcome.id in late
        ]
        return UploadsAccepted(batch_id=opened.batch_id, queued=opened.queued, rejected=rejected)

    def receive(self, key: str, source: BinaryIO, size: int) -> None:
        """Stores what comes under a link. Raises Forbidden once its key was used, BadRequest when some is missing."""
        found = _KEY.fullmatch(key)
        if found is None:
            raise Forbidden(_NOT_YOURS)
        tenant_id, file_id = map(UUID, found.groups())
        with self._database.transaction(tenant_id) as session:
            if files.known(session, [file_id]):
                raise Forbidden(_USED)
        if self._objects.put(key, source, max_bytes=size).size < size:
            self._objects.delete([key])
            raise BadRequest(f"fewer than the {size} bytes that were announced")

    def _link(self, tenant_id: UUID, file: UploadWanted) -> UploadLink | UploadRefused:
        if file.size > quotas.MAX_FILE_BYTES:
            return UploadRefused(filename=file.filename, error=too_large(file.filename).reason)
        key = _key(tenant_id, uuid4())
        content_type = clean_content_type(file.content_type, clean_filename(file.filename))
        return UploadLink(
            filename=file.filename,
            key=key,
            url=self._objects.upload_url(key, content_type=content_type, size=file.size, seconds=LINK_SECONDS),
            headers={"Content-Type": content_type},
            expires_in=LINK_SECONDS,
        )

    def _taken(self, taking: Taking, file_id: UUID | str, one: UploadDone, used: set[UUID]) -> StoredFile | str:
        """The file, or why there is none."""
        if isinstance(file_id, str):
            return file_id
        if file_id in used:
            return _USED
        try:
            taken = taking.adopt(file_id, one.key, one.filename, one.mime)
        except NotFound:
            return _NOTHING
        return taken if isinstance(taken, StoredFile) else taken.reason


def _key(tenant_id: UUID, file_id: UUID) -> str:
    return f"{tenant_id}/uploads/{file_id}"


def _file_id(tenant_id: UUID, key: str) -> UUID | None:
    """The id in a key of this tenant; None in any other."""
    found = _KEY.fullmatch(key)
    try:
        return UUID(found.group(2)) if found is not None and key == _key(tenant_id, UUID(found.group(2))) else None
    except ValueError:
        return None


def _first(ids: Iterable[UUID | None]) -> list[UUID | str]:
    """Each id where it stands first; elsewhere, why it does not count."""
    seen: set[UUID] = set()
    found: list[UUID | str] = []
    for file_id in ids:
        found.append(_NOT_YOURS if file_id is None else _USED if file_id in seen else file_id)
        if file_id is not None:
            seen.add(file_id)
    return found
