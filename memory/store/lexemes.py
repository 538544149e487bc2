"""How text becomes lexemes: what Postgres' parser is given, and the exact terms it would take apart."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import islice

# An exact term counts little beside the stemmed words it is made of; it is what puts a code before its look-alikes.
EXACT_WEIGHT = 0.5
# Enough to put Williams before William, whose stems are the same, and nowhere near enough to change anything else.
NAME_WEIGHT = 0.05
# Nothing else contains it; Postgres' parser leaves no lexeme that begins with it.
EXACT_PREFIX = "="
_MOST_EXACT_TERMS = 2_000
_MOST_NAMES = 1_000
_MOST_CHARACTERS = 200
# With all the others far below the 16,000 different terms that one memory's weights hold.
_MOST_PAIRS = 10_000
_MOST_SINGLES = 2_000

# With the accent that is typed for one.
APOSTROPHES = "\u2018\u2019\u201b\u02bc\u00b4"
_APOSTROPHES = {ord(mark): "'" for mark in APOSTROPHES}
_HYPHENS = {ord(mark): "-" for mark in "\u2010\u2011\u2212"}
# Where a locale knows no better, the parser takes every mark beyond ASCII for a letter: of `“tea”—hot` it makes one
# word, and of a soft hyphen a part of its word.
_LAST_MARK = 0x1FFFF
_MARKS = {
    code: None if unicodedata.category(chr(code)) == "Cf" else " "
    for code in range(0x80, _LAST_MARK)
    if unicodedata.category(chr(code)) in ("Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Cf")
}
_VARIATIONS = dict.fromkeys(range(0xFE00, 0xFE10))
_ONE_SPELLING = {**_MARKS, **_VARIATIONS, **_HYPHENS, **_APOSTROPHES, 0x200B: " "}
# What the parser would read as one word, as another, or not at all.
_JOINED = re.compile(
    "|".join(
        (
            r"(?<=\w)-(?=\d)",  # `OPS-12226`: `op` and the number `-12226`
            r"\+(?=\d)",  # `+49`: another number than `49`
            r"(?<!\w)v(?=\d+\.\d)",  # `v2.13.7`: another version than `2.13.7`, which stays whole
            r"[/\\@<>~]",  # `and/or`, `<name>`
            r"(?<=\w\w)(?<!\d)\.(?=\w\w)",  # `end.Next`, but `U.S.` stays whole
            r"(?<=\w\d)\.(?=[^\W\d]\w)",  # `log2.txt`, but `3.14` stays whole
        )
    )
)
# Of `I've` and `we'll` stemming keeps `ve` and `ll`, which say no more than `I` and `we`.
_CONTRACTED = re.compile(r"(?<=\w)'(?:m|re|ve|ll|d)\b")
_PICTURE = re.compile("[\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff]")
# None of these may try again from another place of the same run: a text can be one run of 10,000 characters.
_RUN = re.compile(r"\w+(?:[-./:@#]\w+)*")
_WORD = re.compile(r"\w+")
_CODE = re.compile(r"\d_?[^\W\d]|[^\W\d]_?\d|_\w")
_SPACES = re.compile(r"\s+")
# Scripts that set no spaces between words (Thai, Lao, Tibetan, Burmese, Khmer, Chinese, Japanese), and Korean, which
# hangs its particles on them.
_UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u0f40-\u0fbc\u1000-\u103f\u1050-\u108f\u1100-\u11ff"
    "\u1780-\u17d3\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua48c\ua960-\ua97c\uaa60-\uaa7f\uac00-\ud7fb\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_UNSPACED_RUN = re.compile(f"[{_UNSPACED}]+")
_SCRIPT_CHANGES = re.compile(f"(?<=[^\\W{_UNSPACED}])(?=[{_UNSPACED}])|(?<=[{_UNSPACED}])(?=[^\\W{_UNSPACED}])")


def searchable(text: str) -> str:
    """The text as `to_tsvector` is to read it, in memories and queries alike."""
    # A locale's own idea of lower case would miss letters that it does not know.
    folded = _one_spelling(text).casefold()
    return _SCRIPT_CHANGES.sub(" ", _JOINED.sub(" ", _CONTRACTED.sub("", folded)))


def exact_terms(text: str) -> list[str]:
    """Codes, ids, paths, addresses: words joined by marks or mixed with digits, each once, lower case, prefixed."""
    codes = (term.lower() for term in _joined_and_codes(_one_spelling(text)))
    return _distinct(codes, _MOST_EXACT_TERMS)


def character_terms(text: str) -> list[str]:
    """Of scripts without spaces every character and every pair of neighbours: any part of a run is found by these.

    Besides them every emoji.
    """
    runs = [*_UNSPACED_RUN.findall(_one_spelling(text)), *_PICTURE.findall(text)]
    singles = _distinct((character for run in runs for character in run), _MOST_SINGLES)
    return singles + _distinct((pair for run in runs for pair in _pairs(run)), _MOST_PAIRS)


def wanted_character_terms(query: str) -> list[str]:
    """What a query asks of them: the pairs, and a character that stands alone."""
    runs = [*_UNSPACED_RUN.findall(_one_spelling(query)), *_PICTURE.findall(query)]
    return _distinct((term for run in runs for term in (_pairs(run) if len(run) > 1 else run)), _MOST_PAIRS)


def names(text: str) -> list[str]:
    """Words that could be names or of another language, whole: stemming may make two names one. Not prefixed."""
    words = (word for word in _lone_words(_one_spelling(text)) if not (word.isascii() and word.islower()))
    return [term.removeprefix(EXACT_PREFIX) for term in _distinct((word.casefold() for word in words), _MOST_NAMES)]


def wanted_names(query: str) -> list[str]:
    """Each word of a query could be a name, however it is written."""
    words = (word.casefold() for word in _lone_words(_one_spelling(query)))
    return [term.removeprefix(EXACT_PREFIX) for term in _distinct(words, _MOST_NAMES)]


def is_unspaced(lexeme: str) -> bool:
    """Whether it is, or holds, a run of a script without spaces: of another length in another text."""
    return _UNSPACED_RUN.search(lexeme) is not None


def plain(phrase: str) -> str:
    """A phrase as it is looked for in texts: composed, with single spaces. The case is the database's to fold."""
    return _SPACES.sub(" ", unicodedata.normalize("NFC", phrase).translate(_APOSTROPHES)).strip()


def any_of(lexemes: Iterable[str]) -> str:
    """A tsquery that matches what holds at least one of the lexemes."""
    return " | ".join(quoted(lexeme) for lexeme in lexemes)


def all_of(lexemes: Iterable[str]) -> str:
    """A tsquery that matches what holds every one of the lexemes."""
    return " & ".join(quoted(lexeme) for lexeme in lexemes)


def any_of_all(alternatives: Iterable[Iterable[str]]) -> str:
    """A tsquery that matches what holds all lexemes of at least one alternative."""
    return " | ".join(f"({all_of(lexemes)})" for lexemes in alternatives)


def quoted(lexeme: str) -> str:
    """A lexeme as a tsquery operand, whatever characters it holds."""
    return "'" + lexeme.replace("\\", "\\\\").replace("'", "''") + "'"


def _one_spelling(text: str) -> str:
    # Ligatures of PDFs, full-width digits, accents of their own: written differently, meant alike. Apostrophes come
    # first: an accent that stands alone would be taken apart.
    return unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).translate(_ONE_SPELLING)


def _distinct(terms: Iterable[str], most: int) -> list[str]:
    fitting = (EXACT_PREFIX + term for term in terms if len(term) <= _MOST_CHARACTERS)
    seen: dict[str, None] = {}
    return list(islice((term for term in fitting if term not in seen and not seen.update({term: None})), most))


def _pairs(run: str) -> Iterator[str]:
    return (run[start : start + 2] for start in range(len(run) - 1))


def _lone_words(text: str) -> Iterator[str]:
    runs = (match.group() for match in _RUN.finditer(text))
    return (run for run in runs if run.isalpha() and not _UNSPACED_RUN.search(run))


def _joined_and_codes(text: str) -> Iterator[str]:
    for match in _RUN.finditer(text):
        run = match.group()
        words = _WORD.findall(run)
        if len(words) > 1:
            yield run
        yield from (word for word in words if _CODE.search(word))
