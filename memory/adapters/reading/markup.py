"""HTML, and Markdown, which becomes HTML on the way: read by unstructured, with nothing left out."""

import re
from collections.abc import Iterable, Iterator

from lxml import etree, html
from markdown_it import MarkdownIt
from unstructured.documents.elements import Element, Table, Text, Title
from unstructured.partition import text_type
from unstructured.partition.html import parser, partition_html

from memory.adapters.reading.collector import Collector, clean, one_line
from memory.adapters.reading.tables import add_table, looks_like_header

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_WORD = re.compile(r"\w+|[^\w\s]")


def replace_rules() -> None:
    """Puts simple rules where unstructured would fetch a spaCy model; they steer labels, never the text. And keeps
    paragraphs of one character, which it drops.

    The version of unstructured is pinned for this, and a test holds the four names.
    """
    kind_of = parser.derive_element_type_from_text
    for module, name, rule in (
        (text_type, "sent_tokenize", lambda text: [part for part in _SENTENCE_END.split(str(text)) if part]),
        (text_type, "word_tokenize", lambda text: _WORD.findall(str(text))),
        (text_type, "contains_verb", lambda text: len(text.split()) >= 6),
        (parser, "derive_element_type_from_text", lambda text: kind_of(text) or (Text if text.strip() else None)),
    ):
        setattr(module, name, rule)


replace_rules()

# unstructured leaves these out as decoration, and everything outside of <main>; people search for all of it.
_TO_DIV = ("main", "nav", "figure", "details", "summary", "form", "dialog", "noscript", "object")
_TO_SPAN = ("button", "label", "textarea", "select", "datalist", "output", "legend")
_NOT_TEXT = ("script", "style", "template", "head", "svg", "iframe", "audio", "video", "canvas", "noframes", "noembed")
# fmt: off
_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "body", "br", "caption", "center", "dd", "div", "dl", "dt", "footer",
    "h1", "h2", "h3", "h4", "h5", "h6", "header", "hgroup", "hr", "li", "ol", "p", "pre", "section", "table", "tbody",
    "td", "tfoot", "th", "thead", "tr", "ul",
})
# fmt: on
_TAG = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[^<>]*>", re.IGNORECASE | re.DOTALL)
_WORDS = re.compile(r"\w+")
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)


def read_html(text: str, found: Collector, *, with_links: bool = False, is_part: bool = False) -> None:
    """Headings, paragraphs, list items and table rows; the page's title is the top heading, unless the page is part of
    something with a heading of its own. With links: their targets stand behind them.
    """
    root = _parsed(text)
    if root is None:
        found.text(_stripped(text))
        return
    title = one_line(root.findtext(".//title") or "")
    _prepare(root, with_links=with_links)
    visible = _visible_text(root)
    if _letters(visible) < 0.5 * _letters(_stripped(text)):
        # The parser gives up below some depth; what stands there is text all the same.
        visible = _stripped(text)
    elements = list(_elements(root))
    first = next((one_line(element.text) for element in elements if isinstance(element, Title)), "")
    is_titled = not is_part and bool(title) and title.casefold() != first.casefold()
    if is_titled:
        found.heading(title)
    if _loses_text(visible, (element.text for element in elements)):
        found.text(visible)
        return
    for element in elements:
        _add(element, found, deeper=1 if is_titled or is_part else 0)


def _parsed(text: str) -> etree._Element | None:
    try:
        # As bytes: a page may declare an encoding that is no longer its own.
        forgiving = html.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True)
        root: etree._Element | None = html.document_fromstring(clean(text).encode(), parser=forgiving)
    except (etree.ParserError, etree.XMLSyntaxError, RecursionError):
        return None
    return root


def _prepare(root: etree._Element, *, with_links: bool) -> None:
    """Makes everything that is text into something that unstructured reads."""
    if with_links:
        _show_links(root)
    _prepare_tables(root)
    for image in list(root.iter("img")):
        image.tag, image.text = "span", f" {image.get('alt', '')} "
    for option in list(root.iter("option")):
        option.tag, option.text = "span", f" {option.text or ''} "
    for element in list(root.iter(*_TO_DIV)):
        element.tag = "div"
    for element in list(root.iter(*_TO_SPAN)):
        element.tag, element.tail = "span", f" {element.tail or ''}"
    etree.strip_elements(root, *_NOT_TEXT, with_tail=False)


def _show_links(root: etree._Element) -> None:
    for link in list(root.iter("a")):
        target = link.get("href", "")
        if ":" in target and target not in "".join(map(str, link.itertext())):
            link.tail = f" ({target}){link.tail or ''}"


def _prepare_tables(root: etree._Element) -> None:
    # The innermost tables, which hold the data, stay.
    layouts = {table for table in root.iter("table") if _is_layout(table)}
    for part in list(root.iter("tbody", "thead", "tfoot", "tr", "td", "th")):
        if next(part.iterancestors("table"), None) in layouts:
            part.tag = "div"
    for table in layouts:
        table.tag = "div"
    for cell in list(root.iter("td", "th")):
        # A cell becomes one line: what stood on lines of its own must not grow together.
        for part in cell.iterdescendants(*_BLOCKS):
            part.text, part.tail = f" {part.text or ''}", f" {part.tail or ''}"


def _is_layout(table: etree._Element) -> bool:
    """A table around headings or other tables only arranges the page."""
    return next(table.iterdescendants("table", "h1", "h2", "h3", "h4", "h5", "h6"), None) is not None


def _elements(root: etree._Element) -> Iterator[Element]:
    try:
        # Guessing the language of every paragraph is slow and steers nothing here.
        yield from partition_html(text=etree.tostring(root, encoding="unicode", method="html"), languages=["eng"])
    except (RecursionError, etree.LxmlError):
        return


def _add(element: Element, found: Collector, *, deeper: int) -> None:
    if isinstance(element, Title) and element.metadata.category_depth is not None:
        found.heading(element.text, element.metadata.category_depth + 1 + deeper)
    elif isinstance(element, Table) and element.metadata.text_as_html:
        _add_table(element.metadata.text_as_html, found)
    else:
        found.text(element.text)


def _add_table(markup: str, found: Collector) -> None:
    table = html.fragment_fromstring(markup.replace("<br/>", " "))
    if caption := one_line(table.findtext("caption") or ""):
        found.text(caption)
    rows = list(table.iter("tr"))
    cells = [[one_line(cell.text_content()) for cell in row if cell.tag in ("td", "th")] for row in rows]
    named = bool(rows) and all(cell.tag == "th" for cell in rows[0])
    add_table(found, cells, has_header=named or bool(cells and looks_like_header(cells[0])))


def _loses_text(shown: str, read: Iterable[str]) -> bool:
    """Whether more than a hundredth of the letters that a reader sees are missing from what was read."""
    return 0.99 * _letters(shown) > sum(_letters(text) for text in read)


def _letters(text: str) -> int:
    return sum(map(len, _WORDS.findall(text)))


def _visible_text(root: etree._Element) -> str:
    """The text with line breaks where blocks begin and end; without recursion, as pages nest as deep as they like."""
    pieces: list[str] = []
    for event, element in etree.iterwalk(root, events=("start", "end")):
        if element.tag in _BLOCKS:
            pieces.append("\n")
        pieces.append((element.text if event == "start" else element.tail) or "")
    return "\n".join(filter(None, (one_line(line) for line in "".join(pieces).split("\n"))))


def _stripped(text: str) -> str:
    """The text without tags, when no tree can be made of them."""
    return "\n".join(filter(None, (one_line(html_line) for html_line in _TAG.sub("\n", text).split("\n"))))


def read_markdown(text: str, found: Collector) -> None:
    """CommonMark with tables. The block of settings at the top of a page is text."""
    text = clean(text)
    if front := _FRONT_MATTER.match(text):
        found.text(front[1])
        text = text[front.end() :]
    # Not by unstructured's own parser: a page of open brackets takes that one minutes.
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
    if _letters(_stripped(page)) < 0.5 * _letters(text):
        found.text(text)  # it drops what is nested too deeply
    else:
        read_html(page, found, with_links=True)
