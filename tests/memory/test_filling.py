"""What a memory says of the files that it carries: their texts in the place of their names, and what was left out."""

from memory.filling import with_what_was_read
from memory.ports import Block, Document


def test_a_memory_says_its_documents_in_the_place_of_their_names() -> None:
    rows = [Block(kind="row", text=f"{n},red", header="name,colour") for n in ("rose", "poppy")]
    document = Document(content_type="text/csv", blocks=[Block(kind="heading", text="Flowers"), *rows])

    def said(text: str, filename: str, document: Document) -> str:
        return with_what_was_read(text, filename, document)[0]

    assert said("a.txt\nlist.csv\nlist.csv", "list.csv", document) == (
        "a.txt\nFlowers\nname,colour\nrose,red\npoppy,red\nlist.csv"
    )
    assert said("my own words", "list.csv", document) == "my own words"
    assert said("void", "void", Document(content_type="a/b", blocks=[])) == "void"


def test_what_is_too_long_for_a_memory_is_said_to_be_cut() -> None:
    long = Document(content_type="a/b", blocks=[Block(text="x" * 9_999 + "\x00" + "yz")])

    assert with_what_was_read("n", "n", long) == (
        "x" * 9_999 + "y",
        "only the first 10000 of its 10001 characters are in the text",
    )
    # The files that are still to be read keep their place.
    text, _ = with_what_was_read("n\nb.txt", "n", long)
    assert (len(text), text.endswith("\nb.txt")) == (10_000, True)
    assert with_what_was_read(text, "b.txt", long) == (
        text,
        "only the first 0 of its 10001 characters are in the text",
    )
    short = Document(content_type="a/b", blocks=[Block(text="short")])
    assert with_what_was_read(text, "b.txt", short) == (text.replace("b.txt", "short"), None)
