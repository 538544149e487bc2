"""PDF, page by page: the text layer, or where a page has none, what OCR reads on the page as it looks."""

import ctypes
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice

import pypdfium2
import pypdfium2.raw
from PIL import Image

from memory.adapters.reading.collector import Collector, one_line
from memory.adapters.reading.scans import Ocr
from memory.errors import RejectedFile

MAX_PAGES = 2_000
# A page with fewer letters than this is a picture with a stamp or a page number on it,
_MIN_LETTERS = 16
# or with a line at its foot, where the picture fills most of the page.
_MIN_LETTERS_OF_TEXT = 100
_MOST_OF_THE_PAGE = 0.5
# Where fonts do not say which letters they show, what looks like text is none.
_MAX_UNKNOWN = 0.3
_LOOKED_AT = 400
_OCR_DPI = 200
_MAX_ANNOTATIONS = 1_000
_MAX_ANNOTATION_BYTES = 200_000
_MAX_IMAGES = 200
_BUTTONS = (pypdfium2.raw.FPDF_FORMFIELD_CHECKBOX, pypdfium2.raw.FPDF_FORMFIELD_RADIOBUTTON)
# A page may claim to be kilometres wide; what it is rendered to is bounded, not what it claims.
_MAX_RENDERED_PIXELS = 12_000_000
# Smaller than this, no letter of any size would be left.
_MIN_SCALE = 0.1
_POINTS_PER_INCH = 72
# pdfium puts these where a hyphen ended a line. Before a capital or a number it is part of the word.
_HARD_HYPHEN = re.compile("[\x02\ufffe]\\s*(?=[A-Z0-9])")
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
        unread = illegible = 0
        for number in range(1, min(len(document), MAX_PAGES) + 1):
            with _page(document, number) as page:
                text, is_readable = _text_layer(page)
                illegible += not is_readable
                letters = len(_LETTER.findall(text[:1000]))
                if (_is_picture(page, letters=letters) or not is_readable) and _scale(page) > _MIN_SCALE:
                    scanned = ocr.text_on(partial(_rendered, page))
                    unread += scanned is None
                    illegible -= bool(scanned) and not is_readable
                    text = _with_scanned(text, scanned or "", letters=letters)
                written = list(_written_on(document, page))
            _add_page(text, number, titles.get(number, {}), found)
            found.text("\n".join(filter(None, written)), page=number)
        if illegible:
            found.note(
                f"text of {illegible} {_pages(illegible)} left out: its fonts do not say which letters they show"
            )
        if unread:
            found.note(f"{unread} {_pages(unread)} without text not read: {ocr.why_not}")


def _pages(count: int) -> str:
    return "pages" if count > 1 else "page"


def _with_scanned(text: str, scanned: str, *, letters: int) -> str:
    """What OCR saw shows the page's own few letters as well; those of a whole line are right as they stand."""
    if len(scanned) <= len(text):
        return text
    return scanned if letters < _MIN_LETTERS else f"{text}\n\n{scanned}"


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
        document.init_forms()
        yield document


@contextmanager
def _page(document: pypdfium2.PdfDocument, number: int) -> Iterator[pypdfium2.PdfPage]:
    try:
        page = document[number - 1]
    except pypdfium2.PdfiumError as error:
        raise RejectedFile(f"it is damaged: page {number} cannot be read") from error
    with closing(page):
        yield page


def _text_layer(page: pypdfium2.PdfPage) -> tuple[str, bool]:
    """The text, and whether it says what the page shows."""
    with closing(page.get_textpage()) as layer:
        if _unknown_share(layer) > _MAX_UNKNOWN:
            return "", False
        text: str = layer.get_text_bounded()
    text = _HARD_HYPHEN.sub("-", text.replace("\r\n", "\n"))
    return _DOT_LEADER.sub(" … ", _SOFT_HYPHEN.sub("", text)), True


def _unknown_share(layer: pypdfium2.PdfTextPage) -> float:
    """The share of characters whose fonts do not say what they are, among some from all over the page."""
    count = layer.count_chars()
    looked_at = range(0, count, max(1, count // _LOOKED_AT))
    unknown = sum(pypdfium2.raw.FPDFText_HasUnicodeMapError(layer, index) == 1 for index in looked_at)
    return unknown / len(looked_at) if looked_at else 0.0


def _written_on(document: pypdfium2.PdfDocument, page: pypdfium2.PdfPage) -> Iterator[str]:
    """What was filled into fields and remarked on the page, which no text layer holds."""
    for index in range(min(pypdfium2.raw.FPDFPage_GetAnnotCount(page), _MAX_ANNOTATIONS)):
        annotation = pypdfium2.raw.FPDFPage_GetAnnot(page, index)
        if not annotation:
            continue
        is_field = pypdfium2.raw.FPDFAnnot_GetSubtype(annotation) == pypdfium2.raw.FPDF_ANNOT_WIDGET
        if not is_field:
            read = partial(pypdfium2.raw.FPDFAnnot_GetStringValue, annotation, b"Contents")
        elif document.formenv is not None and _is_field_of_form(document.formenv, annotation):
            read = partial(_field_value, document.formenv, annotation)
        else:
            read = partial(pypdfium2.raw.FPDFAnnot_GetStringValue, annotation, b"V")
        yield _held(read)
        pypdfium2.raw.FPDFPage_CloseAnnot(annotation)


def _is_field_of_form(form: pypdfium2.PdfFormEnv, annotation: pypdfium2.raw.FPDF_ANNOTATION) -> bool:
    return bool(pypdfium2.raw.FPDFAnnot_GetFormFieldType(form, annotation) > pypdfium2.raw.FPDF_FORMFIELD_UNKNOWN)


def _field_value(form: pypdfium2.PdfFormEnv, annotation: pypdfium2.raw.FPDF_ANNOTATION, held: object, size: int) -> int:
    """Of boxes and buttons only those that are set; a field's value may stand at its parent."""
    kind = pypdfium2.raw.FPDFAnnot_GetFormFieldType(form, annotation)
    if kind in _BUTTONS and not pypdfium2.raw.FPDFAnnot_IsChecked(form, annotation):
        return 0
    return int(pypdfium2.raw.FPDFAnnot_GetFormFieldValue(form, annotation, held, size))


def _held(read: Callable[[object, int], int]) -> str:
    """A string that the library writes into a buffer once it has said how large it is."""
    size = read(None, 0)
    if not 2 < size <= _MAX_ANNOTATION_BYTES:
        return ""
    held = (ctypes.c_ushort * (size // 2))()
    read(held, size)
    return bytes(held).decode("utf-16-le", errors="replace").rstrip("\0")


def _is_picture(page: pypdfium2.PdfPage, *, letters: int) -> bool:
    """Whether the page shows text that is not in its text layer: on an image, or drawn as shapes."""
    if letters >= _MIN_LETTERS_OF_TEXT:
        return False
    kinds = [pypdfium2.raw.FPDF_PAGEOBJ_IMAGE]
    if letters == 0:
        kinds += [pypdfium2.raw.FPDF_PAGEOBJ_PATH, pypdfium2.raw.FPDF_PAGEOBJ_SHADING]
    shown = page.get_objects(filter=kinds, max_depth=5)
    if letters < _MIN_LETTERS:
        return next(iter(shown), None) is not None
    return any(_covers(image, page) for image in islice(shown, _MAX_IMAGES))


def _covers(image: pypdfium2.PdfObject, page: pypdfium2.PdfPage) -> bool:
    left, bottom, right, top = image.get_bounds()
    width, height = page.get_size()
    return bool((right - left) * (top - bottom) > _MOST_OF_THE_PAGE * width * height)


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
