"""HTML, and Markdown, which becomes HTML on the way: everything that a reader of the page sees."""

import re

from lxml import etree, html
from markdown_it import MarkdownIt

from memory.adapters.reading.collector import Collector, clean, one_line
from memory.adapters.reading.tables import add_table, looks_like_header

# fmt: off
_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "dialog", "div", "dl",
    "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hgroup",
    "hr", "legend", "li", "main", "marquee", "menu", "nav", "noscript", "object", "ol", "p", "pre", "search", "section",
    "summary", "svg", "table", "tbody", "td", "text", "tfoot", "th", "thead", "title", "tr", "ul",
})
_APART = frozenset({
    "button", "datalist", "input", "label", "math", "optgroup", "option", "output", "select", "textarea",
})
# fmt: on
_NOT_TEXT = ("template", "head", "iframe", "audio", "video", "canvas", "noframes", "noembed")
_SHOWN_FIELDS = ("text", "search", "email", "tel", "url", "number", "date", "submit", "button", "reset")
_HEADING = re.compile("h([1-6])")
# Line breaks of the source are spaces; those of the page are marked until then.
_BREAK = "\x0b"
_SPACES = re.compile(f"[^\\S{_BREAK}]+")
_TAG = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[^<>]*>", re.IGNORECASE | re.DOTALL)
_FRAMES = re.compile(r"<frameset\b", re.IGNORECASE)
_NO_FRAMES = re.compile(r"<(/?)noframes\b", re.IGNORECASE)
_WORDS = re.compile(r"\w+")
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)


def read_html(text: str, found: Collector, *, with_links: bool = False, is_part: bool = False) -> None:
    """Headings, paragraphs, list items and table rows; the page's title is the top heading, unless the page is part of
    something with a heading of its own. With links: their targets stand behind them.
    """
    if _FRAMES.search(text):
        text = _NO_FRAMES.sub(r"<\1div", text)  # all that the page itself says
    root = _parsed(text)
    if root is None:
        found.text(_stripped(text))
        return
    title = one_line(root.findtext(".//title") or "")
    etree.strip_elements(root, "script", "style", with_tail=False)
    if _letters("".join(map(str, root.itertext()))) < 0.5 * _letters(_stripped(text)):
        # The parser gives up below some depth; what stands there is text all the same.
        found.text(_stripped(text))
        return
    _prepare(root, with_links=with_links)
    first = next((one_line("".join(map(str, heading.itertext()))) for heading in root.iter("h1", "h2", "h3")), "")
    is_titled = not is_part and bool(title) and title.casefold() != first.casefold()
    if is_titled:
        found.heading(title)
    _Page(found, deeper=1 if is_titled or is_part else 0).walk(root)


def _parsed(text: str) -> etree._Element | None:
    try:
        # As bytes: a page may declare an encoding that is no longer its own.
        forgiving = html.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True)
        root: etree._Element | None = html.document_fromstring(clean(text).encode(), parser=forgiving)
    except (etree.ParserError, etree.XMLSyntaxError, RecursionError):
        return None
    return root


def _prepare(root: etree._Element, *, with_links: bool) -> None:
    """Makes everything that is seen into text."""
    if with_links:
        _show_links(root)
    for image in list(root.iter("img", "area")):
        image.text = f" {image.get('alt', '')} "
    for field in list(root.iter("input")):
        if field.get("type", "text").lower() in _SHOWN_FIELDS:
            field.text = field.get("value", "")
    for group in list(root.iter("optgroup")):
        group.text = group.get("label", "")
    etree.strip_elements(root, *_NOT_TEXT, with_tail=False)
    # The innermost tables hold the data; those around headings or other tables only arrange the page.
    for table in [table for table in root.iter("table") if _is_layout(table)]:
        table.tag = "div"


def _show_links(root: etree._Element) -> None:
    for link in list(root.iter("a")):
        target = link.get("href", "")
        if ":" in target and target not in "".join(map(str, link.itertext())):
            link.tail = f" ({target}){link.tail or ''}"


def _is_layout(table: etree._Element) -> bool:
    return next(table.iterdescendants("table", "h1", "h2", "h3", "h4", "h5", "h6"), None) is not None


class _Page:
    """Walks a tree, without recursion, as pages nest as deep as they like."""

    def __init__(self, found: Collector, *, deeper: int) -> None:
        self._found = found
        self._deeper = deeper
        self._pieces: list[str] = []
        self._pres = 0

    def walk(self, root: etree._Element) -> None:
        table: etree._Element | None = None
        for event, element in etree.iterwalk(root, events=("start", "end")):
            if event == "end":
                if table is None:
                    self._close(element.tag)
                elif element is table:
                    table = None
                if table is None:
                    self._pieces.append(element.tail or "")
            elif table is None and element.tag == "table":
                self._end_paragraph()
                self._table(element)
                table = element
            elif table is None:
                self._open(element)
        self._end_paragraph()

    def _open(self, element: etree._Element) -> None:
        tag = element.tag
        if tag in _BLOCKS:
            self._end_paragraph()
        self._pres += tag == "pre"
        self._pieces += [_BREAK if tag == "br" else " " if tag in _APART else "", element.text or ""]

    def _close(self, tag: str) -> None:
        if tag in _BLOCKS:
            heading = _HEADING.fullmatch(tag)
            self._end_paragraph(int(heading[1]) + self._deeper if heading else None)
        elif tag in _APART:
            self._pieces.append(" ")
        self._pres -= tag == "pre"

    def _end_paragraph(self, level: int | None = None) -> None:
        text = "".join(self._pieces)
        self._pieces = []
        if self._pres:
            self._found.text(text.replace(_BREAK, "\n").strip("\n"))
            return
        lines = (line.strip() for line in _SPACES.sub(" ", text).split(_BREAK))
        text = "\n".join(filter(None, lines))
        if level is not None:
            self._found.heading(text, level)
        else:
            self._found.text(text)

    def _table(self, table: etree._Element) -> None:
        shown = 0
        for caption in table.iter("caption"):
            shown += _letters(text := _line(caption))
            self._found.text(text)
        rows = list(table.iter("tr"))
        cells = [[_line(cell) for cell in row if cell.tag in ("td", "th")] for row in rows]
        shown += sum(_letters(cell) for row in cells for cell in row)
        if shown < _letters(_line(table)):
            self._found.text(_line(table))  # what stands between its cells is seen as well
            return
        named = bool(rows) and all(cell.tag == "th" for cell in rows[0])
        add_table(self._found, cells, has_header=named or bool(cells and looks_like_header(cells[0])))


def _line(part: etree._Element) -> str:
    """The text of a part as one line: what stood on lines of its own must not grow together."""
    pieces: list[str] = []
    for event, element in etree.iterwalk(part, events=("start", "end")):
        is_apart = element.tag in _BLOCKS or element.tag in _APART or element.tag == "br"
        own = element.text if event == "start" else element.tail if element is not part else ""
        pieces += [" " if is_apart and event == "start" else "", own or ""]
        if is_apart and event == "end":
            pieces.insert(-1, " ")
    return one_line("".join(pieces))


def _letters(text: str) -> int:
    return sum(map(len, _WORDS.findall(text)))


def _stripped(text: str) -> str:
    """The text without tags, when no tree can be made of them."""
    return "\n".join(filter(None, (one_line(html_line) for html_line in _TAG.sub("\n", text).split("\n"))))


def read_markdown(text: str, found: Collector) -> None:
    """CommonMark with tables. The block of settings at the top of a page is text."""
    text = clean(text)
    if front := _FRONT_MATTER.match(text):
        found.text(front[1])
        text = text[front.end() :]
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
    if _letters(_stripped(page)) < 0.5 * _letters(text):
        found.text(text)  # it drops what is nested too deeply
    else:
        read_html(page, found, with_links=True)
