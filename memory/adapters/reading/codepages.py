"""Which legacy code page a text is in: the reading whose letters make sense for one language."""

import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import itemgetter

# Letters beyond ASCII of the languages that each code page was used for, the likelier first: an earlier one wins a tie.
_ALPHABETS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        ("cp1252", "iso8859-15", "mac_roman", "cp850", "cp437"),
        (
            "äöüß",
            "àâæçéèêëîïôœùûüÿ",
            "áéíñóúüºª",
            "áâãàçéêíóôõúüºª",
            "àèéìíòóùúº",
            "åäöæøéü",
            "éëïóöüèêá",
            "àçèéíïòóúü",
        ),
    ),
    (
        ("cp1250", "iso8859-2", "cp852", "mac_latin2"),
        ("ąćęłńóśźż", "áčďéěíňóřšťúůýž", "áéíóöőúüű", "áäčďéíĺľňóôŕšťúýž", "čćđšž", "ăâîşţșț"),
    ),
    (("cp1255", "iso8859-8"), ("אבגדהוזחטיךכלםמןנסעףפץצקרשת",)),
    (("cp1251", "koi8-r", "cp866", "iso8859-5", "mac_cyrillic"), ("абвгдежзийклмнопрстуфхцчшщъыьэюяё",)),
    (("cp1251", "koi8-u", "iso8859-5"), ("абвгдежзийклмнопрстуфхцчшщьюяіїєґ", "абвгдежзиклмнопрстуфхцчшђјљњћџ")),
    (("cp1253", "iso8859-7"), ("αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋΐΰ",)),
    (("cp1254",), ("çğıöşüâîi̇",)),  # noqa: RUF001
    (("cp1257",), ("ąčęėįšųūž", "āčēģīķļņšūž", "äõöüšž")),
    (("cp1256", "iso8859-6"), ("ءآأؤإئابةتثجحخدذرزسشصضطظعغفقكلمنهوىيپچژگ،؟",)),
    (("cp874",), ("".join(map(chr, range(0x0E01, 0x0E5C))),)),
    (("cp1252",), ("áðéíóúýþæö",)),
)
_HEBREW_FINALS = frozenset("ךםןףץ")
# They stand between words and say nothing; inside a word they are what another code page's letter became.
_BETWEEN_WORDS = frozenset("«»“”„‘’‚–—…€°§£©®™²³µ·•¿¡×÷±\xa0\xad½¼¾")  # noqa: RUF001
_WORDS_OF_ONE_LETTER = frozenset("àáâäåæèéêíóôöøúıаиоувксязжбіїєοηήώو")
_FRACTIONS = frozenset("¼½¾")
_INSIDE_WORDS = frozenset("’·\xad")  # noqa: RUF001
_ENOUGH = 0.8
# A list of names comes from many languages: then all letters of the code page count, a little less.
_MIXED = 0.9
_MIXED_SIGNS = 0.97
_RARE = {"cp852": 0.97, "mac_latin2": 0.97, "cp850": 0.97, "cp437": 0.97, "mac_roman": 0.97, "mac_cyrillic": 0.97}
_TIE = 0.005
_DOUBT = 0.06
# With so many of them, an equally likely reading would have shown itself to be wrong somewhere.
_TELLING_BYTES = 60
_GREEK_WORD = re.compile("[\u0370-\u03ff]{2,}")
_ACCENTS = re.compile("[άέήίόύώΐΰϊϋ]")
# Longer samples are cut off here.
MAX_SAMPLE = 128 * 1024
_TWICE_ACCENTED = 0.1
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")


@dataclass(frozen=True)
class Guess:
    """A codec, and whether no other reading is as likely."""

    codec: str
    is_certain: bool


def guess(sample: bytes) -> Guess | None:
    """The codec whose reading is likeliest; None when none makes enough sense."""
    scores = list(_scores(sample))
    best = max((score for _, score in scores), default=0.0)
    if best < _ENOUGH:
        return None
    rivals = [codec for codec, score in scores if score > best - _TIE]
    likely = [codec for codec, score in scores if score > best - _DOUBT]
    is_long = len(sample) - len(sample.translate(None, bytes(range(128, 256)))) >= _TELLING_BYTES
    return Guess(
        _best_relative(rivals[0], scores), is_certain=is_long or len({_decoded(sample, rival) for rival in likely}) == 1
    )


def _best_relative(codec: str, scores: list[tuple[str, float]]) -> str:
    """Of the code pages for the same languages the one that fits best: they differ in a few signs."""
    relatives = next((pages for pages, _ in _ALPHABETS if codec in pages), (codec,))
    return max((score for score in scores if score[0] in relatives), key=itemgetter(1))[0]


def _scores(sample: bytes) -> Iterator[tuple[str, float]]:
    for codec, judge in _MULTIBYTE:
        text = _decoded(sample, codec)
        if text is not None:
            yield codec, judge(text, sample) * _whole(text)
    for pages, languages in _ALPHABETS:
        every = "".join(languages)
        is_latin = "é" in every or "ü" in every or "č" in every
        for codec in pages:
            text = _decoded(sample, codec)
            if text is None:
                continue
            doubt = _RARE.get(codec, 1.0) * _plausible(text)
            yield codec, doubt * max(_share(text, frozenset(letters), is_latin=is_latin) for letters in languages)
            yield codec, doubt * _MIXED * _share(text, frozenset(every), is_latin=is_latin)


def _decoded(sample: bytes, codec: str) -> str | None:
    try:
        # A sample that was cut off may end inside of a character.
        return codecs.getincrementaldecoder(codec)().decode(sample, final=len(sample) < MAX_SAMPLE)
    except UnicodeDecodeError:
        return None


def _share(text: str, letters: frozenset[str], *, is_latin: bool) -> float:
    """How many of the characters beyond ASCII are letters of the language, in words that are written like words."""
    expected = unexpected = 0
    for before, character, after in zip(" " + text, text, text[1:] + " ", strict=False):
        if character < "\x80":
            continue
        joins = before.isalpha() or after.isalpha()
        if character in _FRACTIONS and after.isalpha() and not before.isdigit():
            unexpected += 1  # "½uvre" was an "œuvre"
            continue
        if character in _BETWEEN_WORDS and (not (before.isalpha() and after.isalpha()) or character in _INSIDE_WORDS):
            continue
        # "пРИВЕТ" and "oÙ": small letter, then a capital, is another code page's small letter.
        is_torn = (character.isupper() and before.islower()) or (character in _HEBREW_FINALS and after.isalpha())
        is_mixed = not is_latin and (_is_ascii_letter(before) or _is_ascii_letter(after))
        is_mixed = is_mixed or before.isdigit() or after.isdigit()
        # "Ł 5" and "ё 5" were pounds.
        is_mixed = is_mixed or (not joins and character.lower() not in _WORDS_OF_ONE_LETTER)
        if character.lower() in letters and not is_torn and not is_mixed:
            expected += 1
        else:
            unexpected += 1
    # Nothing but signs, like a currency: no language can be told.
    return expected / (expected + unexpected) if expected or unexpected else _MIXED_SIGNS


def _is_ascii_letter(character: str) -> bool:
    return character.isascii() and character.isalpha()


def _plausible(text: str) -> float:
    """Long texts are not all capitals; few Greek words have two accents; Cyrillic with few vowels is Hebrew or Cyrillic
    of another code page; Thai without consonants is Hebrew; and no text holds control characters beyond ASCII.
    """
    letters = [character for character in text if character > "\x7f"]
    greek = _GREEK_WORD.findall(text)
    if sum(len(_ACCENTS.findall(word)) > 1 for word in greek) > _TWICE_ACCENTED * len(greek):
        return 0.7
    if any("\x80" <= character <= "\x9f" for character in letters):
        return 0.0
    thai = [character for character in letters if "\u0e01" <= character <= "\u0e5b"]
    if 2 * sum(character <= "\u0e2e" for character in thai) < len(thai):
        return 0.5
    cyrillic = [character for character in text.lower() if "\u0430" <= character <= "\u044f"]
    vowels = sum(character in "аеиоуыэюя" for character in cyrillic)
    is_shouted = len(letters) > 20 and sum(map(str.isupper, letters)) > 0.8 * len(letters)
    return 0.9 if is_shouted or vowels < 0.25 * len(cyrillic) else 1.0


def _whole(text: str) -> float:
    """The share of wide characters that do not stand alone between two ASCII letters: those are accented letters."""
    wide = alone = 0
    for before, character, after in zip(" " + text, text, text[1:] + " ", strict=False):
        if character > "\x7f":
            wide += 1
            alone += _is_ascii_letter(before) and _is_ascii_letter(after)
    return 1 - alone / wide if wide else 0.0


def _chinese(_text: str, sample: bytes) -> float:
    """The share of the commonest characters, which GB 2312 puts first."""
    return _share_of_leads(sample, range(0xA1, 0xD8), trails_from=0xA1)


def _traditional(_text: str, sample: bytes) -> float:
    return _share_of_leads(sample, range(0xA1, 0xC7), trails_from=0x40)


def _korean(text: str, _sample: bytes) -> float:
    """All Hangul lies in a third of what Chinese would use."""
    hangul = sum("가" <= character <= "힣" and _is_common_hangul(character) for character in text)
    wide = sum(character >= "\u3000" for character in text)
    # Korean texts hold Chinese characters too; Chinese read as Korean shows hardly more Hangul than half.
    return min(1.0, 1.2 * hangul / wide) if wide else 0.0


def _is_common_hangul(character: str) -> bool:
    # The rest of the code page is for syllables that hardly occur, and what other code pages' letters look like.
    return all(byte >= 0xA1 for byte in character.encode("cp949"))


def _shift_jis(text: str, sample: bytes) -> float:
    """Names and headlines have hardly any kana; their characters are of the commoner half, which comes first."""
    wide = [character for character in text if character > "\x7f"]
    leads = [character.encode("cp932", errors="replace")[0] for character in wide]
    common = sum(lead in range(0x81, 0x98) for lead in leads)
    odd = sum(lead in range(0xA0, 0xE0) for lead in leads)
    return max(_japanese(text, sample), 0.97 * (common - odd) / len(wide) if len(wide) > 1 else 0.0)


def _japanese(text: str, _sample: bytes) -> float:
    """Kana are a good part of any Japanese text, and in nothing else."""
    kana = sum("\u3040" <= character <= "\u30ff" for character in text)
    odd = sum("\uff61" <= character <= "\uff9f" or "\x80" <= character < "\u3000" for character in text)
    wide = sum(character > "\x7f" for character in text)
    return min(1.0, 3 * (kana - odd) / wide) if wide else 0.0


def _share_of_leads(sample: bytes, leads: range, *, trails_from: int) -> float:
    common = every = 0
    for run in _BEYOND_ASCII.finditer(sample.decode("latin-1")):
        data = sample[run.start() : run.end() + 1]
        for lead, trail in zip(data[::2], data[1::2], strict=False):
            every += 1
            common += lead in leads and trail >= trails_from
    return common / every if every else 0.0


_MULTIBYTE: tuple[tuple[str, Callable[[str, bytes], float]], ...] = (
    ("euc_jp", _japanese),
    ("cp932", _shift_jis),
    ("cp949", _korean),
    ("gb18030", _chinese),
    ("big5hkscs", _traditional),
)
