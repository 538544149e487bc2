"""Files dropped and worked through as the workflow does it when nothing goes wrong, for the tests of drops."""

import io
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from memory.drop_schemas import BatchFile, BatchProgress, DropOptions
from memory.intake import IncomingFile
from memory.ports import Block, Document, FileReader
from memory.schemas import Caller, MemoryFilter
from memory.services import Services

BEES = b"Bees dance to tell the hive where the flowers are.\n"


class ScriptedReader(FileReader):
    """Says what it is told to, and counts."""

    def __init__(self, answer: Callable[[str], Document]) -> None:
        self.answer = answer
        self.read_files: list[str] = []

    def read(self, path: Path, filename: str) -> Document:
        self.read_files.append(filename)
        return self.answer(filename)


def incoming(name: str, content: bytes = BEES, content_type: str | None = None) -> IncomingFile:
    return IncomingFile(name, content_type, io.BytesIO(content))


def paragraphs(*texts: str) -> Callable[[str], Document]:
    return lambda _: Document(content_type="text/plain", blocks=[Block(text=text) for text in texts])


def open_one(house: Services, caller: Caller, name: str = "bees.txt", content: bytes = BEES) -> tuple[UUID, UUID]:
    """(batch id, file id) of a drop of one file."""
    batch_id = house.drops.open(caller, "garden", [incoming(name, content)], DropOptions()).batch_id
    _, ((file_id,),) = house.ingesting.unfinished(caller.tenant_id, batch_id, 100)
    return batch_id, file_id


def work(house: Services, caller: Caller, batch_id: UUID) -> BatchProgress:
    """What the workflow does when nothing goes wrong."""
    while not house.ingesting.close(caller.tenant_id, batch_id):
        for portion in house.ingesting.unfinished(caller.tenant_id, batch_id, 100)[1]:
            for file_id in portion:
                house.ingesting.read(caller.tenant_id, file_id)
            house.ingesting.store(caller.tenant_id, portion)
    return house.batches.progress(caller, batch_id)


def only_file(house: Services, caller: Caller, batch_id: UUID) -> BatchFile:
    (file,) = house.batches.progress(caller, batch_id).files
    return file


def objects_of(services: Services, caller: Caller) -> list[str]:
    folder = services.settings.rememberos_data / "objects" / str(caller.tenant_id)
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def memories_of(services: Services, caller: Caller) -> int:
    return services.memories.page(caller, "garden", MemoryFilter(limit=200))[1]
