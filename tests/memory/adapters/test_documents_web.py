"""Web pages, Markdown, JSON, XML and tables in text form."""

import json

import pytest

from memory.ports import Block
from tests.memory.adapters.conftest import Read, shown

PAGE = """<!doctype html><html><head><title>Falcon - Kestrel</title><style>p { color: red }</style>
<script>var hidden = 1</script></head><body>
<header>Top line <nav><ul><li>Home</li></ul></nav></header>
<main><h1>The <em>Falcon</em></h1><p>A gravel bike with <a href="/x">a link</a>.</p></main>
loose words <div>In a div <span>and a span</span><div>inner</div> after</div>
<h2>Table</h2><table><caption>All parts</caption><tr><th>Part</th><th>Price</th></tr>
<tr><td>Frame<br>steel</td><td><b>900</b> euros</td></tr></table>
<ul><li>one<ul><li>one a</li></ul></li><li><p>two</p></li></ul><dl><dt>Term</dt><dd>Meaning</dd></dl>
<pre>code  line
  indented</pre><figure><img alt="A bird" src="x"><figcaption>Caption</figcaption></figure>
<details><summary>More</summary>Folded</details><form><label>Name</label><button>Send</button></form>
<p>5 &lt; 7 &amp; caf&eacute;&nbsp;bar</p><p>x</p><footer>Foot</footer></body></html>"""


def test_a_page_is_read_whole_and_in_order(read: Read) -> None:
    document = read("falcon.html", PAGE.encode())
    assert shown(document) == [
        "# Falcon - Kestrel",
        "Top line",
        "Home",
        "## The Falcon",
        "A gravel bike with a link.",
        "loose words",
        "In a div and a span",
        "inner",
        "after",
        "### Table",
        "All parts",
        "| Frame steel | 900 euros",
        "one",
        "one a",
        "two",
        "Term",
        "Meaning",
        "code  line\n  indented",
        "A bird",
        "Caption",
        "More",
        "Folded",
        "Name Send",
        "5 < 7 & café bar",
        "x",
        "Foot",
    ]
    assert next(block for block in document.blocks if block.kind == "row").header == "Part | Price"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("<p>one<br>two<p>three", ["one\ntwo", "three"]),
        (
            "<form><input value='filled'><input type=hidden value='x'><input type=submit value='Go'></form>",
            ["filled Go"],
        ),
        ("<svg><text>in a drawing</text></svg><p><math><mi>x</mi><mo>=</mo><mn>5</mn></math>", ["in a drawing", "x=5"]),
        ("<table><tr><td><h2>Framed</h2>text</td></tr></table>", ["## Framed", "text"]),
        ("<table><tr><td>a<td>b<tr><td>c<td><ul><li>d<li>e</ul></table>", ["| c | d e"]),
        ("<my-part>in a part of one's own</my-part><p>un<b>brok</b>en", ["in a part of one's own", "unbroken"]),
        ("<template>no</template><iframe>no</iframe><script>no</script><noscript>yes</noscript>", ["yes"]),
        ("<select><optgroup label='All'><option>one<option>two</select>", ["All one two"]),
    ],
)
def test_the_corners_of_a_page(read: Read, body: str, expected: list[str]) -> None:
    assert shown(read("a.html", f"<html><body>{body}</body></html>".encode())) == expected


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252", "koi8-r"])
def test_a_page_may_name_its_encoding(read: Read, encoding: str) -> None:
    text = "Größe" if encoding != "koi8-r" else "Рама"
    page = f'<html><head><meta charset="{encoding}"></head><body><p>{text} (a)</p></body></html>'
    assert shown(read("page.html", page.encode(encoding))) == [f"{text} (a)"]


def test_tables_that_arrange_a_page_are_not_tables(read: Read) -> None:
    page = "<table><tr><td><h1>News</h1><p>First.</p></td><td><table><tr><td>a1</td><td>b1</td></tr><tr><td>a2</td>"
    page += "<td>b2</td></tr></table></td></tr></table>"
    document = read("mail.html", page.encode())
    assert shown(document) == ["# News", "First.", "| a2 | b2"]
    assert document.blocks[-1].header == "a1 | b1"


@pytest.mark.parametrize("page", ["<div>" * 50_000 + "deep words" + "</div>" * 50_000, "<p>deep words"])
def test_no_depth_loses_words(read: Read, page: str) -> None:
    assert shown(read("deep.html", page.encode())) == ["deep words"]


MARKDOWN = """---
title: Warranty
---
# Frame *warranty*

Ten years,
the first owner. See [the form](https://kestrel.example/form).

Rust
----

| Part | Years |
|------|-------|
| Hub  | 5     |

1. first
2. second

```python
# no heading
if x:
    y()
```
"""


def test_markdown(read: Read) -> None:
    assert shown(read("warranty.md", MARKDOWN.encode())) == [
        "title: Warranty",
        "# Frame warranty",
        "Ten years, the first owner. See the form (https://kestrel.example/form).",
        "## Rust",
        "| Hub | 5",
        "first",
        "second",
        "# no heading\nif x:\n    y()",
    ]


@pytest.mark.parametrize("text", ["[" * 50_000 + " deep words", ">" * 50_000 + " deep words"])
def test_markdown_of_marks_alone_is_read_in_time(read: Read, text: str) -> None:
    assert "deep words" in " ".join(shown(read("marks.md", text.encode())))


def test_json_keeps_names_beside_values(read: Read) -> None:
    data = '{"shop": "Kestrel", "open": true, "bikes": [{"name": "Falcon", "price": 2390.00}, {"name": "H\\u00e9ron"}]}'
    document = read("shop.json", data.encode())
    assert shown(document) == [
        "shop: Kestrel",
        "open: true",
        "bikes.name: Falcon\nbikes.price: 2390.00",
        "bikes.name: Héron",
    ]


@pytest.mark.parametrize(
    ("filename", "data", "expected"),
    [
        ("lines.jsonl", '{"a": 1}\n{"a": 2}\n', ["a: 1", "a: 2"]),
        ("broken.json", '{"a": 1,\n "b": }', ['{"a": 1,\n "b": }']),
        ("deep.json", "[" * 100_000, ["[" * 100_000]),
        ("conf.yaml", "a: 1  # why\nb:\n  - c\n", ["a: 1  # why\nb:\n  - c"]),
        ("a.xml", "<?xml version='1.0'?><r><b id='7'>Bolt</b><n>Nut</n></r>", ["b (id 7): Bolt", "n: Nut"]),
        ("mixed.xml", "<?xml version='1.0'?><r><p>An <i>inner</i> word</p></r>", ["p: An inner word"]),
        ("own.xml", "<?xml version='1.0'?><!DOCTYPE r [<!ENTITY k 'Kestrel'>]><r>&k; Ltd</r>", ["r: Kestrel Ltd"]),
        ("vector.svg", "<svg xmlns='http://www.w3.org/2000/svg'><text>Drawn</text></svg>", ["text: Drawn"]),
        ("icon.svg", "<svg xmlns='http://www.w3.org/2000/svg'><style>a{}</style><path d='M 1 2'/></svg>", []),
        ("broken.xml", "<?xml version='1.0'?><r>half", ["<?xml version='1.0'?><r>half"]),
    ],
)
def test_data_in_text_form(read: Read, filename: str, data: str, expected: list[str]) -> None:
    assert shown(read(filename, data.encode())) == expected


def test_a_csv_keeps_its_header_and_row_numbers(read: Read) -> None:
    document = read("orders.csv", b'order,remark\nK-1,"two, with a comma"\n\nK-2,"on\ntwo lines"\n')
    assert document.blocks == [
        Block(kind="row", text="K-1 | two, with a comma", header="order | remark", place={"row": 2}),
        Block(kind="row", text="K-2 | on two lines", header="order | remark", place={"row": 4}),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_a_csv_of_any_delimiter_and_encoding(read: Read, delimiter: str, encoding: str) -> None:
    lines = [("Größe", "Preis"), ("klein", "3,5"), ("groß", "7")]
    data = "\n".join(delimiter.join(f'"{cell}"' for cell in line) for line in lines)
    document = read("liste.csv", data.encode(encoding))
    assert shown(document) == ["| klein | 3,5", "| groß | 7"]
    assert document.blocks[0].header == "Größe | Preis"


def test_a_page_of_frames_is_what_it_says_without_them(read: Read) -> None:
    page = "<html><head><title>Framed</title></head><frameset><frame src=a><noframes><p>Read it here.</p></noframes>"
    assert shown(read("frames.html", f"{page}</frameset></html>".encode())) == ["# Framed", "Read it here."]
    assert shown(read("page.html", b"<html><body><p>Seen.</p><noframes>Unseen.</noframes></body></html>")) == ["Seen."]


def test_a_calendar_is_its_events(read: Read) -> None:
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "X-WR-CALNAME:Workshop"]
    lines += ["BEGIN:VEVENT", "DTSTART;TZID=Europe/Rome:20261014T100000", "SUMMARY:Meeting about the carbon fo", " rks"]
    lines += ["DESCRIPTION:One\\nTwo\\, three", 'ATTENDEE;CN="Joost; the boss":mailto:j@kestrel.example', "END:VEVENT"]
    lines += ["BEGIN:VEVENT", "SUMMARY:Second", "END:VEVENT", "END:VCALENDAR"]
    assert shown(read("meeting.ics", "\r\n".join(lines).encode())) == [
        "X-WR-CALNAME: Workshop",
        "DTSTART: 20261014T100000\nSUMMARY: Meeting about the carbon forks\nDESCRIPTION: One\nTwo, three\n"
        "ATTENDEE: mailto:j@kestrel.example",
        "SUMMARY: Second",
    ]


def test_an_address_card_is_its_person(read: Read) -> None:
    lines = ["BEGIN:VCARD", "VERSION:2.1", "FN;CHARSET=UTF-8;ENCODING=QUOTED-PRINTABLE:J=C3=B6rg =", "M=C3=BCller"]
    lines += [
        "item1.TEL;CELL:+49 170 1",
        "ADR:;;Via Roma 1;Torino",
        "PHOTO;ENCODING=BASE64:QUJD",
        " QUJD",
        "",
        "END:VCARD",
    ]
    card = "FN: Jörg Müller\nTEL: +49 170 1\nADR: Via Roma 1, Torino"
    assert shown(read("people", "\n".join(lines * 2).encode())) == [card, card]


def test_a_notebook_is_its_cells(read: Read) -> None:
    outputs = [{"text": ["42\n"]}, {"data": {"image/png": "iVBORw0KGgo", "text/plain": "<Figure>"}}]
    cells = [
        {"cell_type": "markdown", "source": ["# Wheels\n", "Some *text*."]},
        {"cell_type": "code", "source": ["x = 6\n", "print(x * 7)"], "outputs": outputs},
    ]
    notebook = json.dumps({"cells": cells, "nbformat": 4}).encode()
    assert shown(read("wheels.ipynb", notebook)) == ["# Wheels", "Some text.", "x = 6\nprint(x * 7)", "42", "<Figure>"]
