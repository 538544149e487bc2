"""Lexemes: what is exact, what is split, and that Postgres takes whatever comes out."""

import hypothesis
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from memory.store.lexemes import any_of, character_terms, exact_terms, quoted, searchable, wanted_character_terms
from tests.memory.conftest import Connection


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("OPS-12226 is down", ["=ops-12226"]),
        ("see ERR_1234.", ["=err_1234"]),
        ("host db-01.eu.example.org:5432!", ["=db-01.eu.example.org:5432"]),
        ("mail me@example.org", ["=me@example.org"]),
        ("src/app/main.py#L20", ["=src/app/main.py#l20", "=l20"]),
        ("v2 and 2v and x_y and _z", ["=v2", "=2v", "=x_y", "=_z"]),
        ("a well-known word", ["=well-known"]),
        ("1,000.50 and 2024-01-15", ["=000.50", "=2024-01-15"]),
        ("plain words only, and 42.", []),
        ("OPS-1 ops-1 Ops-1", ["=ops-1"]),
        ("- _ . / : @ # -- ...", []),
        ("-5 5- .5 5.", []),
        ("a'b\\c d'1", []),
        ("Ü-1 Straße7 ЖЗ-42", ["=ü-1", "=straße7", "=жз-42"]),
        ("中文-7 😀-7 😀a1", ["=中文-7", "=a1"]),
        ("", []),
    ],
)
def test_exact_terms_are_codes_and_joined_words(text: str, terms: list[str]) -> None:
    assert exact_terms(text) == terms


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("OPS-12226", "ops 12226"),
        ("1-2-3", "1 2 3"),
        ("it is -5 there", "it is -5 there"),
        ("well-known", "well-known"),
        ("é-5 中-5", "é 5 中 5"),
        ("love/hate end.Next me@example.org", "love hate end next me example org"),
        ("/etc/app.conf <b>List<int>", " etc app conf  b list int "),
        ("~me +49 c++ 1+1", " me  49 c++ 1 1"),
        ("app2.log C:\\logs", "app2 log c: logs"),
        ("3.14 2.13.7 V2.1-rc1 v2 U.S. e.g. p.m", "3.14 2.13.7  2.1-rc1 v2 u.s. e.g. p.m"),
        ("“tea”—hot…", " tea  hot..."),
        ("l\u2019heure don\u00b4t O\u2018Neil", "l'heure don't o'neil"),
        ("I'm sure we\u2019ll, they'd, you've: rock'n'roll 'em 'd", "i sure we, they, you: rock'n'roll 'em 'd"),
        ("5\u201310 €20 •one", "5 10  20  one"),
        ("non\u200bstop שלום\u200f \ufeffword", "non stop שלום word"),
        ("हिन्दी की", "हिन्दी की"),
    ],
)
def test_marks_end_words_where_the_parser_would_not_see_it(text: str, read: str) -> None:
    assert searchable(text) == read


@pytest.mark.parametrize(
    ("text", "terms"), [("so glad 🎉🚀!", ["=🎉", "=🚀"]), ("❤️ it", ["=❤"]), ("€5 →", []), ("中🎉", ["=中", "=🎉"])]
)
def test_every_emoji_is_a_term(text: str, terms: list[str]) -> None:
    assert character_terms(text) == terms
    assert wanted_character_terms(text) == terms


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("ﬁle ﬂow", "file flow"),
        ("cafe\u0301", "café"),
        ("\uff21\uff22\uff11\uff12", "AB12"),
        ("data\u00adbase", "database"),
        ("OPS\u201112226", "OPS-12226"),
    ],
)
def test_one_word_has_one_spelling(written: str, meant: str) -> None:
    assert searchable(written) == searchable(meant)
    assert exact_terms(written) == exact_terms(meant)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", ["a", "1", "_", "é", "a.", "a-", "a1", "-", "1_", ". ", "aa1-"])
def test_a_text_of_one_kind_is_read_in_one_pass(unit: str) -> None:
    # A pattern that tries again from every place of a run would be at this for days.
    text = unit * 1_000_000
    assert len(exact_terms(text)) <= 1
    assert len(searchable(text)) <= len(text)


def test_a_text_of_codes_alone_is_cut_at_two_thousand() -> None:
    codes = [f"a{number}" for number in range(5_000)]
    assert exact_terms(" ".join(codes)) == [f"={code}" for code in codes[:2_000]]


def test_a_term_longer_than_any_code_is_left_out() -> None:
    assert exact_terms(f"{'a' * 150}-{'b' * 49} {'a' * 150}-{'b' * 50}") == [f"={'a' * 150}-{'b' * 49}"]


_marks = st.text(alphabet="ab1'\\\"|&!()<>:*-_. /@#\t\né中😀\u00ad\u0301\u2011", max_size=60)
_anything = st.text(alphabet=st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=200)
_long_words = st.builds(
    lambda word, count: word * count, st.sampled_from(["a", "é", "中", "a1", "a'"]), st.integers(1, 1_100)
)


@hypothesis.settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=_marks | _anything | _long_words)
def test_postgres_takes_and_finds_whatever_comes_out(as_app: Connection, text: str) -> None:
    stemmed = as_app.execute("select tsvector_to_array(to_tsvector('english', %s))", (searchable(text),)).fetchone()
    assert stemmed is not None
    assert isinstance(stemmed[0], list)
    wanted = [*stemmed[0], *exact_terms(text)]
    if not wanted:
        return
    row = as_app.execute(
        """
        select stored @@ %(any)s::tsquery, (select bool_and(stored @@ one) from unnest(%(each)s::tsquery[]) as one),
               tsvector_to_array(stored)
        from (select to_tsvector('english', %(text)s) || array_to_tsvector(%(exact)s::text[]) as stored) as row
        """,
        {
            "any": any_of(wanted),
            "each": [quoted(lexeme) for lexeme in wanted],
            "text": searchable(text),
            "exact": exact_terms(text),
        },
    ).fetchone()
    assert row is not None
    assert row[0] is True
    assert row[1] is True
    assert row[2] == sorted(set(wanted), key=lambda lexeme: lexeme.encode())
