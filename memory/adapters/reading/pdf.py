"""PDF, page by page: the text layer, or where a page has none, what OCR reads on the page as it looks."""

import ctypes
import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial

import pypdfium2
import pypdfium2.raw
from PIL import Image

from memory.adapters.reading.collector import Collector, one_line
from memory.adapters.reading.scans import Ocr
from memory.errors import RejectedFile

MAX_PAGES = 2_000
# A page with fewer letters than this is a picture with a stamp or a page number on it.
_MIN_LETTERS = 16
_OCR_DPI = 200
_MAX_ANNOTATIONS = 1_000
_MAX_ANNOTATION_BYTES = 200_000
# A page may claim to be kilometres wide; what it is rendered to is bounded, not what it claims.
_MAX_RENDERED_PIXELS = 12_000_000
# Smaller than this, no letter of any size would be left.
_MIN_SCALE = 0.1
_POINTS_PER_INCH = 72
# pdfium puts these where a hyphen ended a line.
_SOFT_HYPHEN = re.compile("[\x02\u00ad\ufffe]\\s*")
_DOT_LEADER = re.compile(r"(?:[ \t]*\.){5,}[ \t]*")
_NUMBERING = re.compile(r"^(?:\d+\.)*\d*\.?\s+")
_LETTER = re.compile(r"[^\W_]")
_WIDE = re.compile("[\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\uff00-\uff60]")
_NO_SPACE = re.compile("^[\u2e80-\ua4cf\uf900-\ufaff\uff00-\uff60]{2}$")
_LIST_ITEM = re.compile(r"\s*(?:[-*•‣▪◦–]|\(?\w{1,3}[.)])\s")  # noqa: RUF001


def read_pdf(data: bytes, found: Collector, ocr: Ocr) -> None:
    """Headings come from the outline, where a page has a line of the same words."""
    with _opened(data) as document:
        if len(document) > MAX_PAGES:
            found.note(f"only the first {MAX_PAGES} of {len(document)} pages were read")
        titles = _outline(document)
        unread = 0
        for number in range(1, min(len(document), MAX_PAGES) + 1):
            with _page(document, number) as page:
                text = _text_layer(page)
                if _is_picture(page, letters=len(_LETTER.findall(text[:1000]))) and _scale(page) > _MIN_SCALE:
                    scanned = ocr.text_on(partial(_rendered, page))
                    unread += scanned is None
                    text = scanned if scanned and len(scanned) > len(text) else text
                written = list(_written_on(page))
            _add_page(text, number, titles.get(number, {}), found)
            found.text("\n".join(written), page=number)
        if unread:
            found.note(f"{unread} {'pages' if unread > 1 else 'page'} without text not read: {ocr.why_not}")


@contextmanager
def _opened(data: bytes) -> Iterator[pypdfium2.PdfDocument]:
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD:
            raise RejectedFile("it is protected by a password") from error
        raise RejectedFile("it is damaged: it cannot be opened as PDF") from error
    with closing(document):
        if len(document) == 0:
            raise RejectedFile("it is damaged: it has no pages")
        yield document


@contextmanager
def _page(document: pypdfium2.PdfDocument, number: int) -> Iterator[pypdfium2.PdfPage]:
    try:
        page = document[number - 1]
    except pypdfium2.PdfiumError as error:
        raise RejectedFile(f"it is damaged: page {number} cannot be read") from error
    with closing(page):
        yield page


def _text_layer(page: pypdfium2.PdfPage) -> str:
    with closing(page.get_textpage()) as layer:
        text: str = layer.get_text_bounded()
    return _DOT_LEADER.sub(" … ", _SOFT_HYPHEN.sub("", text.replace("\r\n", "\n")))


def _written_on(page: pypdfium2.PdfPage) -> Iterator[str]:
    """What was filled into fields and remarked on the page, which no text layer holds."""
    for index in range(min(pypdfium2.raw.FPDFPage_GetAnnotCount(page), _MAX_ANNOTATIONS)):
        annotation = pypdfium2.raw.FPDFPage_GetAnnot(page, index)
        if not annotation:
            continue
        is_field = pypdfium2.raw.FPDFAnnot_GetSubtype(annotation) == pypdfium2.raw.FPDF_ANNOT_WIDGET
        key = b"V" if is_field else b"Contents"
        size = pypdfium2.raw.FPDFAnnot_GetStringValue(annotation, key, None, 0)
        if 2 < size <= _MAX_ANNOTATION_BYTES:
            held = (ctypes.c_ushort * (size // 2))()
            pypdfium2.raw.FPDFAnnot_GetStringValue(annotation, key, held, size)
            yield bytes(held).decode("utf-16-le", errors="replace").rstrip("\0")
        pypdfium2.raw.FPDFPage_CloseAnnot(annotation)


def _is_picture(page: pypdfium2.PdfPage, *, letters: int) -> bool:
    """Whether the page shows text that is not in its text layer: on an image, or drawn as shapes."""
    if letters >= _MIN_LETTERS:
        return False
    kinds = [pypdfium2.raw.FPDF_PAGEOBJ_IMAGE]
    if letters == 0:
        kinds += [pypdfium2.raw.FPDF_PAGEOBJ_PATH, pypdfium2.raw.FPDF_PAGEOBJ_SHADING]
    return next(iter(page.get_objects(filter=kinds, max_depth=5)), None) is not None


def _scale(page: pypdfium2.PdfPage) -> float:
    """How many pixels a point becomes for OCR."""
    width, height = (max(1.0, side) for side in page.get_size())
    return float(min(_OCR_DPI / _POINTS_PER_INCH, (_MAX_RENDERED_PIXELS / (width * height)) ** 0.5))


def _rendered(page: pypdfium2.PdfPage) -> Image.Image:
    bitmap = page.render(scale=_scale(page))
    with closing(bitmap):
        image: Image.Image = bitmap.to_pil().convert("RGB")
    return image


def _outline(document: pypdfium2.PdfDocument) -> dict[int, dict[str, int]]:
    """Page number to titles and their levels."""
    titles: dict[int, dict[str, int]] = {}
    try:
        for bookmark in document.get_toc():
            target = bookmark.get_dest()
            index = target.get_index() if target is not None else None
            if index is not None and (title := _comparable(bookmark.get_title())):
                titles.setdefault(index + 1, {})[title] = bookmark.level + 1
    except (pypdfium2.PdfiumError, ValueError):
        return {}
    return titles


def _comparable(line: str) -> str:
    """A title without its number: outlines leave it out, or pages do."""
    return _NUMBERING.sub("", one_line(line)).casefold()


def _add_page(text: str, number: int, titles: dict[str, int], found: Collector) -> None:
    paragraph: list[str] = []
    for line in _paragraph_lines(text, titles):
        level = titles.get(_comparable(line))
        if level is None:
            paragraph.append(line)
            continue
        found.text("\n".join(paragraph), page=number)
        paragraph = []
        found.heading(line, level, page=number)
    found.text("\n".join(paragraph), page=number)


def _paragraph_lines(text: str, titles: Mapping[str, int]) -> Iterator[str]:
    """Joins the lines of a paragraph: a line that runs on to the right margin goes on in the next one."""
    lines = [line.strip() for line in text.split("\n")]
    full = 0.75 * max((_width(line) for line in lines), default=0)
    joined = ""
    for index, line in enumerate(lines):
        # Chinese and Japanese have no spaces between words, so none where a line ends.
        joined = joined + line if _NO_SPACE.search(joined[-1:] + line[:1]) else f"{joined} {line}".strip()
        following = lines[index + 1] if index + 1 < len(lines) else ""
        is_apart = _comparable(line) in titles or _comparable(following) in titles or _LIST_ITEM.match(following)
        if is_apart or not following or _width(line) < max(full, 40):
            yield joined
            joined = ""
    if joined:
        yield joined


def _width(line: str) -> int:
    """How much room a line takes, in letters of the Latin alphabet."""
    return len(line) + len(_WIDE.findall(line))
