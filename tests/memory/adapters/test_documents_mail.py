"""Mail: subject, people and date, the right body, and what is attached."""

import struct
from email.message import EmailMessage

import pytest

from memory.errors import RejectedFile
from tests.memory.adapters.conftest import Read, shown
from tests.memory.adapters.paper import compound


def message(**headers: str) -> EmailMessage:
    mail = EmailMessage()
    for name, value in {"Subject": "The forks", "From": "Chiara <c@forks.example>", **headers}.items():
        mail[name] = value
    return mail


def test_a_mail_has_its_headers_and_its_plain_body(read: Read) -> None:
    mail = message(To="Joost <j@kestrel.example>", Date="Wed, 14 Oct 2026 09:42:00 +0200", **{"Message-ID": "<1@x>"})
    mail.set_content("Three weeks late.\n")
    mail.add_alternative("<p>Three weeks <b>late</b>.</p>", subtype="html")
    document = read("mail.eml", mail.as_bytes())
    assert document.metadata == {
        "subject": "The forks",
        "from": "Chiara <c@forks.example>",
        "to": "Joost <j@kestrel.example>",
        "date": "2026-10-14T09:42:00+02:00",
        "message_id": "<1@x>",
    }
    assert shown(document) == [
        "# The forks",
        "From: Chiara <c@forks.example>\nTo: Joost <j@kestrel.example>\nDate: Wed, 14 Oct 2026 09:42:00 +0200",
        "Three weeks late.",
    ]


def test_a_mail_of_html_alone_is_stripped(read: Read) -> None:
    mail = message()
    mail.set_content("<html><title>x</title><body><h1>Late</h1><p>Three weeks.</p></body></html>", subtype="html")
    assert shown(read("mail.eml", mail.as_bytes()))[2:] == ["## Late", "Three weeks."]


def test_an_empty_plain_form_gives_way_to_the_html(read: Read) -> None:
    mail = message()
    mail.set_content(" \n")
    mail.add_alternative("<p>Only here.</p>", subtype="html")
    assert shown(read("mail.eml", mail.as_bytes()))[2:] == ["Only here."]


def test_attachments_are_files_inside_of_the_mail(read: Read) -> None:
    mail = message()
    mail.set_content("See below.")
    mail.add_attachment(b"%PDF-", maintype="application", subtype="pdf", filename="offer – neu.pdf")  # noqa: RUF001
    mail.add_attachment("inner text", filename="notes.txt")
    forwarded = message(Subject="Inner")
    forwarded.set_content("Forwarded words.")
    mail.add_attachment(forwarded)
    document = read("mail.eml", mail.as_bytes())
    assert shown(document)[1:] == [
        "From: Chiara <c@forks.example>\nAttachments: offer – neu.pdf, notes.txt, Inner.eml",  # noqa: RUF001
        "See below.",
    ]
    assert document.note == "3 attachments"
    contents = {member.name: member.content for member in document.members}
    assert contents["offer – neu.pdf"] == b"%PDF-"  # noqa: RUF001
    assert contents["notes.txt"] == b"inner text\n"
    assert shown(read("Inner.eml", contents["Inner.eml"]))[::2] == ["# Inner", "Forwarded words."]


def test_pictures_of_a_page_are_files_even_where_the_plain_form_is_shown(read: Read) -> None:
    mail = message()
    mail.set_content("Plain words.")
    mail.add_alternative("<p>Words <img src='cid:a'></p>", subtype="html")
    (_, page) = mail.iter_parts()
    assert isinstance(page, EmailMessage)
    page.add_related(b"PNG", maintype="image", subtype="png", cid="<a>")
    document = read("mail.eml", mail.as_bytes())
    assert shown(document)[-1] == "Plain words."
    assert [(member.name, member.content) for member in document.members] == [("attachment 1.png", b"PNG")]


@pytest.mark.parametrize(
    "kind", ["multipart/encrypted; boundary=b", "application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m"]
)
def test_a_mail_for_its_recipient_alone_is_refused_with_that_reason(read: Read, kind: str) -> None:
    with pytest.raises(RejectedFile, match="only its recipient can read it"):
        read("mail.eml", f"From: a@b.c\nSubject: S\nContent-Type: {kind}\n\n--b\n\nMIAG\n".encode())


@pytest.mark.parametrize(
    ("charset", "declared"),
    [("koi8-r", "koi8-r"), ("utf-8", "no-such-charset"), ("cp1251", "unknown-8bit"), ("iso2022_jp", "iso-2022-jp")],
)
def test_bodies_of_any_charset(read: Read, charset: str, declared: str) -> None:
    text = "Вилки опоздают на три недели." if charset != "iso2022_jp" else "フォークは三週間遅れます。"
    head = f"From: a@b.c\nSubject: =?utf-8?B?0JLQuNC70LrQuA==?=\nContent-Type: text/plain; charset={declared}\n"
    data = f"{head}Content-Transfer-Encoding: 8bit\n\n".encode() + text.encode(charset)
    document = read("mail.eml", data)
    assert document.metadata["subject"] == "Вилки"
    assert shown(document)[-1] == text


def test_headers_that_are_nonsense_lose_nothing(read: Read) -> None:
    data = b'From: "unclosed <a@b\nTo: ;;,\nDate: the day before\nSubject: S\n\nStill here.\n'
    document = read("mail.eml", data)
    assert document.metadata["date"] == "the day before"
    assert shown(document)[-1] == "Still here."


def properties(texts: dict[int, str], head: bytes, *, data: int = 0) -> dict[str, bytes]:
    """Streams of a message's or an attachment's properties; `data` is the size of an attachment's content."""
    streams = {f"__substg1.0_{tag:04X}001F": value.encode("utf-16-le") for tag, value in texts.items()}
    # Each property: type and tag, flags, then its size, of texts with the ending zero.
    entries = [(0x001F, tag, 2 * len(value) + 2) for tag, value in sorted(texts.items())]
    entries += [(0x0102, 0x3701, data)] if data else []
    packed = b"".join(struct.pack("<HHIII", kind, tag, 6, size, 0) for kind, tag, size in entries)
    return {"__properties_version1.0": head + packed, **streams}


def test_a_message_that_outlook_saved(read: Read) -> None:
    texts = {0x0037: "The forks", 0x1000: "Three weeks late.\r\nSorry.", 0x0C1A: "Chiara", 0x0C1F: "c@forks.example"}
    streams = properties(texts, struct.pack("<8x4I8x", 0, 2, 0, 2))
    first = {**properties({0x3707: "offer.txt"}, bytes(8), data=5), "__substg1.0_37010102": b"offer"}
    inner = {0x0037: "Grüße", 0x1000: "Forwarded wörds.", 0x0C1A: "Joost"}
    second = properties({0x3707: "Inner"}, bytes(8))
    second |= {f"__substg1.0_3701000D/{name}": value for name, value in properties(inner, bytes(24)).items()}
    for number, attached in enumerate((first, second)):
        streams |= {f"__attach_version1.0_#{number:08d}/{name}": value for name, value in attached.items()}
    document = read("mail.msg", compound(streams))
    assert document.content_type == "application/vnd.ms-outlook"
    assert shown(document) == [
        "# The forks",
        'From: "Chiara" <c@forks.example>\nAttachments: offer.txt, Inner',
        "Three weeks late.\nSorry.",
    ]
    assert document.note == "2 attachments"
    assert (document.members[0].name, document.members[0].content) == ("offer.txt", b"offer")
    assert document.members[1].name == "Inner.eml"
    inside = read("Inner.eml", document.members[1].content)
    assert shown(inside) == ["# Grüße", "From: Joost", "Forwarded wörds."]


def body(kind: int, tag: int, content: bytes) -> bytes:
    """A message whose body is in this property alone."""
    streams = properties({0x0037: "The forks"}, struct.pack("<8x4I8x", 0, 0, 0, 0))
    streams["__properties_version1.0"] += struct.pack("<HHIII", kind, tag, 6, len(content), 0)
    return compound({**streams, f"__substg1.0_{tag:04X}{kind:04X}": content})


# "late" is said twice: the second points back at the first, as the beginning does at what all packed bodies know.
PACKED = b"".join(
    [
        struct.pack("<IIII", 35, 30, int.from_bytes(b"LZFu", "little"), 0),
        bytes([0b00000001]),
        struct.pack(">H", 0 << 4 | 9),  # eleven bytes at 0
        b" Weeks ",
        bytes([0b00100000]),
        b"late,",
        struct.pack(">H", 224 << 4 | 3),
        b"!}",
    ]
)


def test_a_message_whose_body_is_packed_rtf(read: Read) -> None:
    assert shown(read("mail.msg", body(0x0102, 0x1009, PACKED))) == ["# The forks", "Weeks late, late!"]


def test_a_message_whose_body_is_rtf_around_a_page(read: Read) -> None:
    rtf = (
        rb"{\rtf1\ansi\ansicpg1251\fromhtml1{\*\htmltag64 <p>}\htmlrtf {\htmlrtf0 \'c2\'e5\'eb\'ee"
        rb"{\*\htmltag72 </p>}\htmlrtf\par}\htmlrtf0 {\*\htmltag64 <p>}Two.}"
    )
    packed = struct.pack("<II4sI", len(rtf) + 12, len(rtf), b"MELA", 0) + rtf
    assert shown(read("mail.msg", body(0x0102, 0x1009, packed))) == ["# The forks", "Вело", "Two."]


def test_a_message_that_is_a_page_or_in_the_code_page_of_a_machine(read: Read) -> None:
    text = "Велосипед стоит двадцать тысяч рублей."
    page = f"<p>{text}</p>".encode("cp1251")
    assert shown(read("mail.msg", body(0x0102, 0x1013, page)))[1:] == [text]
    assert shown(read("mail.msg", body(0x001E, 0x1000, text.encode("cp1251"))))[1:] == [text]


RUSSIAN = "Велосипед стоит двадцать тысяч рублей"


@pytest.mark.parametrize("codec", ["cp1251", "koi8-r", "utf-8"])
def test_headers_of_bare_bytes(read: Read, codec: str) -> None:
    mail = b"Subject: %b\r\nFrom: a@b.example\r\nTo: c@d.example\r\nDate: today\r\n\r\nHello." % RUSSIAN.encode(codec)
    assert shown(read("mail.eml", mail))[0] == f"# {RUSSIAN}"


def test_an_invitation_without_a_plain_form_is_its_page(read: Read) -> None:
    mail = message()
    mail.set_content("<p>We meet at ten.</p>", subtype="html")
    mail.add_alternative("BEGIN:VCALENDAR", subtype="calendar")
    document = read("mail.eml", mail.as_bytes())
    assert shown(document)[-1] == "We meet at ten."
    assert [member.name for member in document.members] == ["attachment 1.ics"]


def test_a_mail_whose_parts_are_not_parted(read: Read) -> None:
    mail = b"Subject: X\r\nFrom: a@b.example\r\nTo: c@d\r\nDate: today\r\n"
    mail += b'Content-Type: multipart/mixed; boundary="b"\r\n\r\nHello.'
    assert shown(read("mail.eml", mail))[-1] == "Hello."


def test_lines_that_flow_are_one_line(read: Read) -> None:
    mail = (
        b"Subject: X\r\nFrom: a@b.example\r\nTo: c@d\r\nDate: today\r\nContent-Type: text/plain; format=flowed\r\n\r\n"
    )
    mail += b"A line that goes \r\non here.\r\nAnother.\r\n> quoted \r\n> text\r\n-- \r\nAda"
    assert shown(read("mail.eml", mail))[-1] == "A line that goes on here.\nAnother.\n> quoted \n> text\n-- \nAda"
