"""Mail: subject, people and date, the right body, and the names of what is attached."""

import struct
from email.message import EmailMessage

import pytest

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


def test_attachments_are_named(read: Read) -> None:
    mail = message()
    mail.set_content("See below.")
    mail.add_attachment(b"%PDF-", maintype="application", subtype="pdf", filename="offer – neu.pdf")  # noqa: RUF001
    mail.add_attachment("inner text", filename="notes.txt")
    forwarded = message(Subject="Inner")
    forwarded.set_content("Forwarded words.")
    mail.add_attachment(forwarded)
    document = read("mail.eml", mail.as_bytes())
    assert shown(document)[2:] == ["See below."]
    assert document.note == "attachments not read: offer – neu.pdf, notes.txt, message/rfc822"  # noqa: RUF001


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


def test_a_message_that_outlook_saved(read: Read) -> None:
    texts = {
        0x0037: "The forks",
        0x1000: "Three weeks late.\r\nSorry.",
        0x0C1A: "Chiara",
        0x0C1F: "c@forks.example",
    }
    streams = {f"__substg1.0_{tag:04X}001F": value.encode("utf-16-le") for tag, value in texts.items()}
    # Each text property: type and tag, flags, then its size with the ending zero.
    entries = b"".join(
        struct.pack("<HHIII", 0x001F, tag, 6, 2 * len(value) + 2, 0) for tag, value in sorted(texts.items())
    )
    head = struct.pack("<8x4I8x", 0, 1, 0, 1)
    attached = {"__substg1.0_3707001F": "offer.pdf".encode("utf-16-le")}
    attached_entries = bytes(8) + struct.pack("<HHIII", 0x001F, 0x3707, 6, 20, 0)
    data = compound(
        {
            "__properties_version1.0": head + entries,
            **streams,
            "__attach_version1.0_#00000000/__properties_version1.0": attached_entries,
            **{f"__attach_version1.0_#00000000/{name}": value for name, value in attached.items()},
        }
    )
    document = read("mail.msg", data)
    assert document.content_type == "application/vnd.ms-outlook"
    assert shown(document) == ["# The forks", 'From: "Chiara" <c@forks.example>', "Three weeks late.\nSorry."]
    assert document.note == "attachments not read: offer.pdf"
