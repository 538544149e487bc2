"""Members: the files inside of dropped files, made files of the same batch."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID, uuid5

from memory import quotas
from memory.collections import remove_objects
from memory.errors import Forbidden, RejectedFile
from memory.filenames import clean_content_type, clean_filename, clean_path
from memory.ports import Document, Member, ObjectStore
from memory.store import files, ingesting, members
from memory.store.database import Database, Session
from memory.store.ingesting import FileToRead
from memory.store.members import NewMember

# A zip in a zip in a mail is read; what lies deeper stays closed.
MAX_DEPTH = 3
# What one dropped file may hold, at all depths together.
MAX_FAMILY_FILES = 2_000
MAX_FAMILY_BYTES = 200 * 1024**2
EMPTY = "empty file"
OF_A_MAIL = ("subject", "from", "to", "date", "message_id")


class Members:
    """Takes them in: objects first, then all rows in one transaction. Ids come from the parent's id and the place in
    it, so that a step which runs again doubles nothing.
    """

    def __init__(self, database: Database, objects: ObjectStore) -> None:
        self._database = database
        self._objects = objects

    def take(self, tenant_id: UUID, parent: FileToRead, document: Document) -> str | None:
        """The note for the parent. One that has ended meanwhile gets none of them.

        All or none: raises RejectedFile when the account has no room for them. The parent can be tried again then.
        """
        if not document.members:
            return document.note
        if parent.depth >= MAX_DEPTH:
            return _joined(document.note, "not read: it lies too deep inside of other files")
        with self._database.transaction(tenant_id) as session:
            known = members.known(session, parent.id)
            count, size = members.family(session, parent.id)
        listed = [_described(tenant_id, parent.id, place, member) for place, member in enumerate(document.members)]
        new = [
            (described, member.content)
            for described, member in zip(listed, document.members, strict=True)
            if described.id not in known
        ]
        fitting, left_out = _fitting(new, MAX_FAMILY_FILES - count, MAX_FAMILY_BYTES - size)
        with self._database.transaction(tenant_id) as session:
            _require_room(session, tenant_id, [described for described, _ in fitting])
        stored = [self._stored(described, content) for described, content in fitting]
        self._insert(tenant_id, parent, document, stored)
        return _joined(document.note, f"{left_out} of them not taken: there are too many" if left_out else None)

    def _stored(self, described: NewMember, content: bytes) -> NewMember:
        if described.error is not None or described.key is None:
            return described
        kept = self._objects.put(described.key, io.BytesIO(content), max_bytes=len(content))
        return replace(described, sha256=kept.sha256)

    def _insert(self, tenant_id: UUID, parent: FileToRead, document: Document, stored: Sequence[NewMember]) -> None:
        if not stored:
            return
        try:
            with self._database.transaction(tenant_id) as session:
                _require_room(session, tenant_id, stored)
                is_pending = ingesting.hold_pending(session, parent.id)
                if is_pending:
                    members.insert(session, tenant_id, parent.id, stored, _handed_on(parent, document))
        except RejectedFile:
            self._remove_unknown(tenant_id, stored)
            raise
        if not is_pending:
            self._remove_unknown(tenant_id, stored)

    def _remove_unknown(self, tenant_id: UUID, stored: Sequence[NewMember]) -> None:
        keys = [member.key for member in stored if member.key is not None]
        with self._database.transaction(tenant_id) as session:
            # Another attempt at the same step may have brought them in before the parent ended.
            kept = files.with_keys(session, keys)
        remove_objects(self._objects, [key for key in keys if key not in kept])


def _require_room(session: Session, tenant_id: UUID, taken: Sequence[NewMember]) -> None:
    with_content = [member for member in taken if member.key is not None]
    size = sum(member.size for member in with_content)
    try:
        quotas.room_for_members(session, tenant_id, count=len(with_content), size_bytes=size)
    except Forbidden as error:
        raise RejectedFile(
            f"the account has no room for the {len(with_content)} files in it, {size} bytes: {error.detail}"
        ) from error


def _described(tenant_id: UUID, parent_id: UUID, place: int, member: Member) -> NewMember:
    filename = clean_filename(member.name)
    file_id = uuid5(parent_id, str(place))
    error = member.refused or (None if member.content else EMPTY)
    return NewMember(
        id=file_id,
        place=place,
        filename=filename,
        path=clean_path(member.name),
        content_type=clean_content_type(None, filename),
        size=len(member.content),
        sha256=hashlib.sha256(b"").digest(),
        key=f"{tenant_id}/files/{file_id}" if error is None else None,
        error=error,
    )


def _fitting(
    new: Sequence[tuple[NewMember, bytes]], room_files: int, room_bytes: int
) -> tuple[list[tuple[NewMember, bytes]], int]:
    """Those from the first on for which there is room, and how many there are beyond."""
    fitting: list[tuple[NewMember, bytes]] = []
    for described, content in new:
        room_bytes -= len(content)
        if len(fitting) >= room_files or room_bytes < 0:
            break
        fitting.append((described, content))
    return fitting, len(new) - len(fitting)


def _handed_on(parent: FileToRead, document: Document) -> dict[str, str | float]:
    """An attachment's memories name the mail they came from."""
    of_a_mail = {name: document.metadata[name] for name in OF_A_MAIL if name in document.metadata}
    return of_a_mail | {"parent": parent.filename, "parent_id": str(parent.id)}


def _joined(*notes: str | None) -> str | None:
    return "; ".join(filter(None, notes)) or None
