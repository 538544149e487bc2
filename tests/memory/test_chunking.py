"""Cutting documents: nothing is lost, nothing is too long, everything keeps its order and its place."""

import re
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from memory.chunking import OVERLAP_CHARACTERS, SPECIAL_TOKENS, TARGET_CHARACTERS, Chunk, chunk
from memory.ports import Block, Document

WORD_OR_SIGN = re.compile(r"\w+|[^\w\s]")


def count_words(text: str) -> int:
    return len(WORD_OR_SIGN.findall(text))


def count_letters(text: str) -> int:
    """Like a tokenizer on a script that it does not know: many tokens for few characters."""
    return -(-len(text.encode()) // 2)


def cut(*blocks: Block, max_tokens: int = 256) -> list[Chunk]:
    return chunk(
        Document(content_type="text/plain", blocks=list(blocks)), count_tokens=count_words, max_tokens=max_tokens
    )


def text(value: str, **place: int | str) -> Block:
    return Block(text=value, place=place)


def heading(value: str, level: int = 1, **place: int | str) -> Block:
    return Block(kind="heading", text=value, level=level, place=place)


def row(value: str, header: str | None, **place: int | str) -> Block:
    return Block(kind="row", text=value, header=header, place=place)


def sentences(count: int, start: int = 0) -> str:
    return " ".join(f"Sentence number {number} stands here." for number in range(start, start + count))


words = st.text(st.sampled_from("abcXYZ019äß自転車.!?-,"), min_size=1, max_size=12)
texts = st.lists(st.tuples(words, st.sampled_from([" ", " ", " ", "\n", "\n\n", "  \n \n"])), max_size=120).map(
    lambda pairs: "".join(word + space for word, space in pairs)
)
places = st.fixed_dictionaries({}, optional={"page": st.integers(1, 3), "sheet": st.sampled_from(["A", "B"])})
blocks = st.builds(
    Block,
    kind=st.sampled_from(["heading", "text", "text", "row"]),
    text=texts,
    level=st.integers(1, 4),
    header=st.none() | texts,
    place=places,
)


@given(st.lists(blocks, max_size=12), st.integers(40, 400), st.sampled_from([count_words, count_letters]))
@settings(max_examples=150, deadline=None)
def test_nothing_is_lost_and_nothing_is_too_long(found, max_tokens, count_tokens) -> None:  # type: ignore[no-untyped-def]
    chunks = chunk(Document(content_type="x", blocks=found), count_tokens=count_tokens, max_tokens=max_tokens)
    kept = {word for made in chunks for word in made.embedded.split()}
    for block in found:
        assert set(block.text.split()) <= kept
        if block.kind == "row" and block.text.strip() and block.header:
            assert set(block.header.split()) <= kept
    for made in chunks:
        assert count_tokens(made.embedded) + SPECIAL_TOKENS <= max_tokens
        assert made.text.strip()
        assert len(made.text) <= 1.6 * TARGET_CHARACTERS
        path = made.metadata.get("heading")
        assert made.embedded == (f"{path}\n{made.text}" if path else made.text)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(40, 300))
@settings(deadline=None)
def test_order_and_overlap(lengths: list[int], max_tokens: int) -> None:
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    chunks = cut(*(text(sentences(n, start)) for n, start in zip(lengths, starts, strict=True)), max_tokens=max_tokens)
    numbers = [[int(number) for number in re.findall(r"\d+", made.text)] for made in chunks]
    assert all(found == sorted(found) for found in numbers)
    for before, after in pairwise(numbers):
        assert after[-1] > before[-1]
        assert after[0] <= before[-1] + 1
        assert after[0] > before[-1] - OVERLAP_CHARACTERS // 20
    assert {number for found in numbers for number in found} == set(range(sum(lengths)))


def test_a_long_text_is_cut_at_sentence_ends_with_an_overlap() -> None:
    chunks = cut(text(sentences(200)), max_tokens=10_000)
    assert all(made.text.endswith("here.") and made.text.startswith("Sentence number") for made in chunks)
    assert all(TARGET_CHARACTERS / 2 < len(made.text) <= TARGET_CHARACTERS for made in chunks[:-1])
    for before, after in pairwise(chunks):
        assert after.text[:30] in before.text[-OVERLAP_CHARACTERS:]


def test_paragraph_ends_are_better_than_sentence_ends() -> None:
    chunks = cut(text(sentences(25) + "\n\n" + sentences(25, 25)), max_tokens=10_000)
    assert chunks[0].text == sentences(25)


def test_the_heading_path_is_embedded_and_not_shown() -> None:
    chunks = cut(
        heading("Manual"),
        heading("Brakes", 2),
        text("Only mineral oil."),
        heading("Wheels", 2),
        text("True to 0.3 mm."),
    )
    assert [made.text for made in chunks] == ["Only mineral oil.", "True to 0.3 mm."]
    assert [made.metadata["heading"] for made in chunks] == ["Manual > Brakes", "Manual > Wheels"]
    assert chunks[1].embedded == "Manual > Wheels\nTrue to 0.3 mm."


def test_a_heading_with_nothing_under_it_is_text() -> None:
    chunks = cut(heading("One"), heading("Two"), text("Body."), heading("Three", 2))
    assert [(made.text, made.metadata.get("heading")) for made in chunks] == [
        ("One", None),
        ("Body.", "Two"),
        ("Three", "Two"),
    ]


def test_a_heading_that_is_too_long_for_the_path_becomes_text_once() -> None:
    long = "Word " * 100
    chunks = cut(heading(long), text("First."), heading("Short", 2), text("Second."))
    assert chunks[0].text == f"{long.strip()}\nFirst."
    assert "heading" not in chunks[0].metadata
    assert (chunks[1].text, chunks[1].metadata["heading"]) == ("Second.", "Short")


def test_places() -> None:
    chunks = cut(
        text("On page one.", page=1),
        text("On page two.", page=2),
        text("On a slide.", slide=3),
        text("On another.", slide=4),
    )
    assert [made.metadata for made in chunks] == [{"page": 1}, {"page": 2}, {"slide": 3}, {"slide": 4}]


def test_a_sentence_may_run_on_to_the_next_page_but_not_to_the_next_slide() -> None:
    first, second = text("The torque of the seatpost", page=1), text("clamp is 6 newton metres.", page=2)
    assert cut(first, second)[1].text == "The torque of the seatpost\nclamp is 6 newton metres."
    first, second = text("The seatpost is tight.", page=1), text("clamp is 6 newton metres.", page=2)
    assert cut(first, second)[1].text == "clamp is 6 newton metres."
    first, second = text("The torque of the seatpost", page=1), text("Next chapter.", page=2)
    assert cut(first, second)[1].text == "Next chapter."
    first, second = text("The torque of the seatpost", slide=1), text("clamp is 6 newton metres.", slide=2)
    assert cut(first, second)[1].text == "clamp is 6 newton metres."


def test_rows_keep_their_header_and_their_numbers() -> None:
    rows = [
        row(f"part {number} | shelf {number}", "Part | Shelf", sheet="Stock", row=number) for number in range(2, 202)
    ]
    chunks = cut(*rows)
    assert len(chunks) > 2
    assert all(made.text.startswith("Part | Shelf\npart ") for made in chunks)
    spans = [tuple(map(int, made.metadata["rows"].split("-"))) for made in chunks]
    assert spans[0][0] == 2
    assert spans[-1][-1] == 201
    assert all(after[0] == before[-1] + 1 for before, after in pairwise(spans))
    assert {made.metadata["sheet"] for made in chunks} == {"Stock"}
    shown = [line for made in chunks for line in made.text.split("\n")[1:]]
    assert shown == [block.text for block in rows]


def test_a_row_that_is_too_long_is_cut_and_each_piece_has_the_header() -> None:
    chunks = cut(row(sentences(100), "Name | Remark", row=7))
    assert len(chunks) > 1
    assert all(made.text.startswith("Name | Remark\nSentence") for made in chunks)
    assert {made.metadata["rows"] for made in chunks} == {"7"}


def test_a_header_that_is_too_long_stands_once_in_full() -> None:
    header = " | ".join(f"Column{number}" for number in range(200))
    chunks = cut(row("1 | 2 | 3", header, row=2), row("4 | 5 | 6", header, row=3))
    assert "Column199" in " ".join(made.text for made in chunks)
    assert chunks[-1].text.startswith("Column0 | ")
    assert chunks[-1].text.endswith("\n4 | 5 | 6")


def test_one_unbroken_megabyte_is_cut_with_few_counts() -> None:
    asked: list[int] = []

    def count_tokens(value: str) -> int:
        asked.append(len(value))
        return count_letters(value)

    document = Document(content_type="text/plain", blocks=[text("x" * 1_000_000)])
    chunks = chunk(document, count_tokens=count_tokens, max_tokens=256)
    assert "".join(made.text for made in chunks).count("x") >= 1_000_000
    assert len(asked) <= 2 * len(chunks)
    assert sum(asked) <= 3_000_000


def test_whitespace_alone_is_no_chunk() -> None:
    assert cut(text(" \n\t \n"), heading(" "), row("  ", "Head", row=1)) == []
    assert cut() == []
