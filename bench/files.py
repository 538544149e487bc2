"""Files of every common kind, made of texts: paragraphs in, bytes out, the same for the same texts."""

import csv
import html
import io
import json
import textwrap
import zipfile
import zlib
from collections.abc import Callable, Sequence
from email.message import EmailMessage

import docx
import openpyxl
import pptx

_LINES_A_PAGE = 50
_CHARACTERS_A_LINE = 90


def txt(texts: Sequence[str]) -> bytes:
    return "\n\n".join(texts).encode()


def markdown(texts: Sequence[str]) -> bytes:
    return "\n\n".join(f"## Part {number}\n\n{text}" for number, text in enumerate(texts, 1)).encode()


def web(texts: Sequence[str]) -> bytes:
    body = "".join(f"<h2>Part {n}</h2><p>{html.escape(text)}</p>" for n, text in enumerate(texts, 1))
    return f"<!doctype html><html><head><title>Parts</title></head><body>{body}</body></html>".encode()


def rows(texts: Sequence[str]) -> bytes:
    held = io.StringIO()
    csv.writer(held).writerows([("number", "text"), *enumerate(texts, 1)])
    return held.getvalue().encode()


def structured(texts: Sequence[str]) -> bytes:
    return json.dumps([{"number": number, "text": text} for number, text in enumerate(texts, 1)]).encode()


def xml(texts: Sequence[str]) -> bytes:
    return f"<parts>{''.join(f'<part>{html.escape(text)}</part>' for text in texts)}</parts>".encode()


def mail(texts: Sequence[str]) -> bytes:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = "Parts", "a@example.org", "b@example.org"
    message.set_content("\n\n".join(texts))
    return message.as_bytes()


def word(texts: Sequence[str]) -> bytes:
    document = docx.Document()
    for number, text in enumerate(texts, 1):
        document.add_heading(f"Part {number}", level=2)
        document.add_paragraph(text)
    return _saved(document.save)


def sheet(texts: Sequence[str]) -> bytes:
    book = openpyxl.Workbook()
    page = book.worksheets[0]
    page.append(("number", "text"))
    for row in enumerate(texts, 1):
        page.append(row)
    return _saved(book.save)


def slides(texts: Sequence[str]) -> bytes:
    shown = pptx.Presentation()
    for number, text in enumerate(texts, 1):
        slide = shown.slides.add_slide(shown.slide_layouts[1])
        slide.shapes.title.text = f"Part {number}"
        slide.placeholders[1].text_frame.text = text
    return _saved(shown.save)


def pdf(texts: Sequence[str]) -> bytes:
    """Pages of text in a built-in font."""
    lines = [line for text in texts for line in [*textwrap.wrap(text, _CHARACTERS_A_LINE), ""]]
    pages = [lines[start : start + _LINES_A_PAGE] for start in range(0, len(lines), _LINES_A_PAGE)]
    numbers = [4 + 2 * index for index in range(len(pages))]
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Count {len(pages)}/Kids[{' '.join(f'{number} 0 R' for number in numbers)}]>>".encode(),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
    ]
    for number, page in zip(numbers, pages, strict=True):
        packed = zlib.compress(_shown_by_pdf(page))
        used = f"/Resources<</Font<</F 3 0 R>>>>/Contents {number + 1} 0 R"
        objects.append(f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]{used}>>".encode())
        objects.append(b"<</Length %d/Filter/FlateDecode>>stream\n%s\nendstream" % (len(packed), packed))
    return _pdf_of(objects)


def archive(texts: Sequence[str]) -> bytes:
    """A zip of one text file for each text."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as packed:
        for number, text in enumerate(texts, 1):
            packed.writestr(f"part-{number}.txt", text)
    return held.getvalue()


KINDS: dict[str, Callable[[Sequence[str]], bytes]] = {
    "txt": txt,
    "md": markdown,
    "html": web,
    "csv": rows,
    "json": structured,
    "xml": xml,
    "eml": mail,
    "docx": word,
    "xlsx": sheet,
    "pptx": slides,
    "pdf": pdf,
}


def _saved(save: Callable[[io.BytesIO], object]) -> bytes:
    held = io.BytesIO()
    save(held)
    return held.getvalue()


def _shown_by_pdf(lines: Sequence[str]) -> bytes:
    # What a string in a PDF would take for its end.
    kept = [line.translate({ord(sign): f"\\{sign}" for sign in "\\()"}) for line in lines]
    shown = "".join(f"({line}) Tj T*\n" for line in kept)
    return f"BT /F 10 Tf 12 TL 50 790 Td\n{shown}ET".encode("cp1252", "replace")


def _pdf_of(objects: Sequence[bytes]) -> bytes:
    written = b"%PDF-1.4\n"
    places = []
    for number, content in enumerate(objects, 1):
        places.append(len(written))
        written += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    trailer = b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (size, len(written))
    return written + b"xref\n0 %d\n0000000000 65535 f \n" % size + table + trailer
