"""Zip containers of office files and e-books, checked before anything in them is unpacked."""

import io
import lzma
import posixpath
import zipfile
import zlib

from lxml import etree

from memory.errors import RejectedFile

PROTECTED = "it is protected by a password"
MAX_UNPACKED = 512 * 1024**2
MAX_PART = 64 * 1024**2
MAX_RATIO = 200
MAX_MEMBERS = 20_000
# Below this no ratio is suspicious: a small file of one repeated byte is no bomb.
_HARMLESS = 16 * 1024**2


class Archive:
    """A zip file whose members are read one at a time. Raises RejectedFile when it would unpack to too much.

    The standard library never inflates beyond the size that a member declares, so the declared sizes are the truth.
    """

    def __init__(self, data: bytes) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except zipfile.BadZipFile as error:
            raise RejectedFile("it is damaged: its container cannot be opened") from error
        members = self._zip.infolist()
        unpacked = sum(member.file_size for member in members)
        if len(members) > MAX_MEMBERS:
            raise RejectedFile(f"it holds {len(members)} parts; {MAX_MEMBERS} are read")
        if unpacked > MAX_UNPACKED or (unpacked > _HARMLESS and unpacked > MAX_RATIO * len(data)):
            raise RejectedFile(f"it unpacks to {unpacked // 1024**2} MB, which no honest file of its size does")
        self.names = frozenset(member.filename for member in members)
        self.members = members
        locked = frozenset(member.filename for member in members if member.flag_bits & 0x1)
        # One part is enough for office files; of an archive of files, the others can be read.
        is_office = "[Content_Types].xml" in self.names or "mimetype" in self.names
        if locked and (is_office or all(member.is_dir() or member.filename in locked for member in members)):
            raise RejectedFile(PROTECTED)

    def read(self, name: str, limit: int = MAX_PART) -> bytes:
        """One member's bytes."""
        try:
            return self.unpack(self._zip.getinfo(name), limit)
        except KeyError as error:
            raise RejectedFile("it is damaged: one of its parts is missing") from error

    def unpack(self, member: zipfile.ZipInfo, limit: int = MAX_PART) -> bytes:
        """The same for one of `members`, of which two may bear one name."""
        if member.flag_bits & 0x1:
            raise RejectedFile(PROTECTED)
        if member.file_size > limit:
            raise RejectedFile(f"one of its parts unpacks to more than {limit // 1024**2} MB")
        try:
            return self._zip.read(member)
        except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            raise RejectedFile("it is damaged: one of its parts cannot be unpacked") from error


class OfficePackage:
    """An Office Open XML file: XML parts that point at one another by relations."""

    def __init__(self, data: bytes) -> None:
        self._archive = Archive(data)
        main = [target for kind, target in self._relations("").values() if kind == "officeDocument"]
        if not main:
            raise RejectedFile("it is damaged: its main part is missing")
        self.main = main[0]

    def xml(self, part: str) -> etree._Element:
        """The root of one part. Entities stay unresolved; nothing is fetched."""
        try:
            return etree.fromstring(self._archive.read(part), parser())
        except etree.XMLSyntaxError as error:
            raise RejectedFile("it is damaged: one of its parts is not valid XML") from error

    def targets(self, part: str) -> dict[str, str]:
        """Relation id to part, of what `part` points at inside the file."""
        return {name: target for name, (_, target) in self._relations(part).items()}

    def related(self, part: str, kind: str) -> list[str]:
        """The parts that `part` points at by relations of one kind, such as `styles` or `notesSlide`."""
        return [target for found, target in self._relations(part).values() if found == kind]

    def _relations(self, part: str) -> dict[str, tuple[str, str]]:
        folder, name = posixpath.split(part)
        relations = posixpath.join(folder, "_rels", f"{name}.rels")
        if relations not in self._archive.names:
            return {}
        found: dict[str, tuple[str, str]] = {}
        for relation in self.xml(relations):
            target = posixpath.normpath(posixpath.join("/", folder, relation.get("Target", ""))).lstrip("/")
            if relation.get("TargetMode") != "External" and target in self._archive.names:
                found[relation.get("Id", "")] = (posixpath.basename(relation.get("Type", "")), target)
        return found


def parser(*, recover: bool = False) -> etree.XMLParser:
    """An XML parser for files of strangers."""
    return etree.XMLParser(
        resolve_entities=False, no_network=True, remove_comments=True, remove_pis=True, recover=recover
    )


def local(element: etree._Element) -> str:
    """The name without its namespace: the strict and the usual form of Office XML differ in nothing else."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def attribute(element: etree._Element, name: str) -> str | None:
    """An attribute by its name without the namespace."""
    return next((str(value) for key, value in element.attrib.items() if str(key).rpartition("}")[2] == name), None)
