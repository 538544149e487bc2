"""How a document travels from the child that read it: as a line of JSON, and the files inside of it as bytes."""

import json

from pydantic import ValidationError

from memory.errors import RejectedFile
from memory.ports import Document, Member


def pack(document: Document) -> bytes:
    members = [(member.name, len(member.content), member.refused) for member in document.members]
    head = f"{document.model_dump_json()}\n{json.dumps(members)}\n".encode()
    return b"".join([head, *(member.content for member in document.members)])


def unpack(answer: bytes) -> Document:
    """Raises RejectedFile for anything that `pack` did not make: a file may have taken its reader over."""
    try:
        written, _, rest = answer.partition(b"\n")
        listed, _, contents = rest.partition(b"\n")
        document = Document.model_validate_json(written)
        members: list[Member] = []
        position = 0
        for name, size, refused in json.loads(listed):
            members.append(Member(str(name), contents[position : position + size], refused and str(refused)))
            position += size
    except (ValidationError, ValueError, TypeError) as error:
        raise RejectedFile("it broke its reader") from error
    return document.model_copy(update={"members": members})
