"""Which legacy code page a text is in: the reading whose letters make sense for one language."""

import codecs
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter

from memory.adapters.reading.commonest import HANGUL, KANJI, SIMPLIFIED, TRADITIONAL

# The letters beyond ASCII of the languages that each code page was used for, the commonest first. Pages and languages
# stand in the order of how likely they are: an earlier one wins a tie.
_ALPHABETS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        ("cp1252", "iso8859-15", "mac_roman", "cp850", "cp437", "cp865"),
        (
            "üäöß",
            "éàèêôîçâùûëïœæüÿ",
            "óáíúñéüºª",
            "ãçáíéóõúêâàôºªü",
            "èàòùéìíóú",
            "äöåé",
            "æøåéóíö",
            "éëïóöèüêáç",
            "óàéíèòçúïü",
        ),
    ),
    (
        ("cp1250", "iso8859-2", "cp852", "mac_latin2"),
        (
            "łżąęśóćńź",
            "íářčéýžěšůúóňťď",
            "áíčýúťéžľšóôäňĺďŕ",
            "áéíóöőüúű",
            "ăîâţşșț",
            "čšćžđ",
            "čšž",
        ),
    ),
    (("cp1255", "iso8859-8", "cp862"), ("יותמלהרנשאבקדפסעםגחכטןצזךץף",)),
    (
        ("cp1251", "koi8-r", "cp866", "iso8859-5", "mac_cyrillic", "cp855"),
        ("оеаинтрслвпкдмуязьыйбчгжфцхюшщэё", "аениотрсвдпзклмъябучжгйфцшщхюь"),
    ),
    (
        ("cp1251", "koi8-u", "iso8859-5", "mac_cyrillic", "cp1125", "cp866", "cp855"),
        (
            "оаниевтрікслпдмузябйчьгжцєфхюшїщґ",
            "анырелкідсвтпямцзуоьўчэбгйшфхюжё",
            "аеионртскупдвмзјлбгњшчцљжћхфђџ",
            "аоетинрдквсмплзујбчгњцжшфќѓљџѕ",
        ),
    ),
    (
        ("cp1253", "iso8859-7", "cp737", "cp869", "mac_greek"),
        ("αοετνισρημπκυςλίδγήέόάχωθφύβώξζψϊϋΐΰ",),
    ),
    (("cp1254", "cp857", "mac_turkish"), ("ışçüğöi̇âîû",)),  # noqa: RUF001
    (("cp1257", "iso8859-13", "iso8859-4", "cp775"), ("šėųįąžčūę", "āēīšļūņķžģč", "äõüöžš")),
    (("cp1252", "iso8859-15"), ("äõüöžš",)),
    (
        ("cp1256", "iso8859-6", "cp720"),
        ("اليمرتوةنفدعسبحقكصأجطخهشإذغضزىثئءظؤآ،؟ـ", "اینردهتومبشسکلپخفزعگصقجطحظچذغضآثئ،؟"),
    ),
    (("cp874",), ("า่อรมก้นเงดัลแีตบไยสขวิทจพหคปืะูชำใ์ถฟุ็ผโณซึภธญฐศษฏฎฆฬฤฉฮฑๆฯฝ",)),
    (("cp1252", "cp850", "cp861", "mac_iceland"), ("ðáæíóöþúýé",)),
    (("cp1258",), ("đôưáàểếạệêịậảộốợóầớấùỗặụọíủờìãềựýứữâúỏởỉơòổửừắẫồéăỡằẩõẽĩũẻẵèỳỹỵỷễẹẳẽỗỡỉẫ",)),
)
_HEBREW_FINALS = frozenset("ךםןףץ")
# They stand between words and say nothing; inside a word they are what another code page's letter became.
_BETWEEN_WORDS = frozenset("«»“”„‘’‚–—…€°§£©®™²³µ·•¿¡×÷±\xa0\xad½¼¾־׳״₪\u200e\u200f№")  # noqa: RUF001
_WORDS_OF_ONE_LETTER = frozenset("àáâäåæèéêíóôöøúıаиоувксязжбіїєοηήώو")
_FRACTIONS = frozenset("¼½¾")
_INSIDE_WORDS = frozenset("’·\xad־׳״")  # noqa: RUF001
_ENOUGH = 0.8
# A list of names comes from many languages: then all letters of the code page count, a little less.
_MIXED = 0.9
_MIXED_SIGNS = 0.97
# The others are of machines that are long gone, or of few people.
# fmt: off
_USUAL = frozenset({
    "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp866", "cp874",
    "iso8859-2", "iso8859-5", "iso8859-6", "iso8859-7", "iso8859-8", "iso8859-15", "koi8-r", "koi8-u",
})
# fmt: on
_RARE = 0.04
_RARE_LETTERS = 3
# What a letter more costs that is rarer than letters of its language are, and how few letters tell nothing of that.
_SURPRISE = 0.08
_FEW_LETTERS = 5
# Sorted by how common they are, each letter is rarer by about the same factor; over the alphabet it is this power of e.
_STEEPNESS = 3.3
_MOST_ACCENTS = 4
_LATIN_END = "\u0250"
_TIE = 0.005
_DOUBT = 0.06
# So many letters are not all wrong by chance.
_TELLING_LETTERS = 2.5
# A sender is believed until a quarter of the letters are wrong.
_CONTRADICTION = 0.25
_ENOUGH_TO_CONTRADICT = 12
# Text of a language has hardly a letter that its alphabet does not.
_CERTAIN = 0.9
_GREEK_WORD = re.compile("[\u0370-\u03ff]{2,}")
_ACCENTS = re.compile("[άέήίόύώΐΰϊϋ]")
# Longer samples are cut off here.
MAX_SAMPLE = 16 * 1024
_TWICE_ACCENTED = 0.1
_RUN = re.compile(r".?[^\x00-\x7f]+.?", re.DOTALL)
_BROKEN = "\ufffd"
_CONTROLS = re.compile("[\x80-\x9f]")
_DAMAGE = 0.02
_LETTERS_OF_A_BREAK = 3
_STRANGE = 0.15
_KNOWN = 0.4
_NO_KANA = 0.97


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
    codec = _best_relative(rivals[0], scores)
    beyond_ascii = len(sample) - len(sample.translate(None, bytes(range(128, 256))))
    doubt = min(_DOUBT, _TELLING_LETTERS / max(beyond_ascii, 1))
    likely = [codec, *(other for other, score in scores if score > best - doubt)]
    return Guess(codec, is_certain=best > _CERTAIN and len({_decoded(sample, other) for other in likely}) == 1)


def contradicts(sample: bytes, declared: str) -> Guess | None:
    """What the text is in when it is surely not in the code page that its sender named."""
    scores = list(_scores(sample))
    claimed = max((score for codec, score in scores if codec == declared), default=1.0)
    best = max((score for _, score in scores), default=0.0)
    beyond_ascii = len(sample) - len(sample.translate(None, bytes(range(128, 256))))
    if beyond_ascii < _ENOUGH_TO_CONTRADICT or best < _CERTAIN or claimed > best - _CONTRADICTION:
        return None
    return guess(sample)


def _best_relative(codec: str, scores: list[tuple[str, float]]) -> str:
    """Of the code pages for the same languages the one that fits best: they differ in a few signs."""
    relatives = next((pages for pages, _ in _ALPHABETS if codec in pages), (codec,))
    return max((score for score in scores if score[0] in relatives), key=itemgetter(1))[0]


def _scores(sample: bytes) -> Iterator[tuple[str, float]]:
    for codec, judge, common in _MULTIBYTE:
        text = _decoded(sample, codec)
        if text is not None:
            yield codec, (judge(text) - _strange(text, common)) * _whole(text)
    tallies: dict[str, tuple[_Tally, float]] = {}
    for pages, languages in _ALPHABETS:
        for codec in pages:
            if codec not in tallies:
                text = _decoded(sample, codec)
                tallies[codec] = (_Tally(text), _plausible(text)) if text is not None else (_Tally(""), 0.0)
            tally, plausible = tallies[codec]
            if plausible:
                rare = 0.0 if codec in _USUAL else min(_RARE, _RARE_LETTERS / max(tally.total, 1))
                yield codec, plausible * max(tally.share(letters) for letters in languages) - rare
                yield codec, plausible * _MIXED * tally.share("".join(languages), is_mixed=True) - rare


def _decoded(sample: bytes, codec: str) -> str | None:
    """The reading with U+FFFD in its broken places; None when it has more of them than damage alone leaves."""
    # A sample that was cut off may end inside of a character.
    text = codecs.getincrementaldecoder(codec)("replace").decode(sample, final=len(sample) < MAX_SAMPLE)
    broken = text.count(_BROKEN) + len(_CONTROLS.findall(text))
    if broken > 1 + _DAMAGE * sum(character > "\x7f" for character in text):
        return None
    return unicodedata.normalize("NFC", text) if codec == "cp1258" else text


class _Tally:
    """Counts the letters beyond ASCII of a reading, apart those that do not stand as a letter in a word does."""

    def __init__(self, text: str) -> None:
        self._letters: Counter[str] = Counter()
        self._beside_ascii: Counter[str] = Counter()
        self._crowded: Counter[str] = Counter()
        self._odd = 0
        for match in _RUN.finditer(text):
            self._count(match[0])
        self.total = self._odd + sum(map(Counter.total, (self._letters, self._beside_ascii, self._crowded)))

    def _count(self, run: str) -> None:
        """A run of characters beyond ASCII with what stands before and after it."""
        is_crowded = sum(character > "\x7f" and character.isalpha() for character in run) > _MOST_ACCENTS
        for before, character, after in zip(" " + run, run, run[1:] + " ", strict=False):
            if character < "\x80":
                continue
            if character == _BROKEN or character < "\xa0":
                self._odd += _LETTERS_OF_A_BREAK
                continue
            if character in _FRACTIONS and after.isalpha() and not before.isdigit():
                self._odd += 1  # "½uvre" was an "œuvre"
                continue
            joins = before.isalpha() or after.isalpha()
            is_between = not (before.isalpha() and after.isalpha()) or character in _INSIDE_WORDS
            if character in _BETWEEN_WORDS and is_between:
                continue
            # "пРИВЕТ" and "oÙ": small letter, then a capital, is another code page's small letter.
            is_torn = (character.isupper() and before.islower()) or (character in _HEBREW_FINALS and after.isalpha())
            # "Ł 5" and "ё 5" were pounds.
            is_alone = not joins and character.lower() not in _WORDS_OF_ONE_LETTER
            if is_torn or is_alone or before.isdigit() or after.isdigit():
                self._odd += 1
            elif _is_ascii_letter(before) or _is_ascii_letter(after):
                self._beside_ascii[character.lower()] += 1
            elif is_crowded:
                self._crowded[character.lower()] += 1
            else:
                self._letters[character.lower()] += 1

    def share(self, letters: str, *, is_mixed: bool = False) -> float:
        """How many of the characters are letters of the language, less for letters that are rarer in it than here."""
        if not self.total:
            return _MIXED_SIGNS  # nothing but signs, like a currency: no language can be told
        # Few letters with accents stand side by side in the languages of Latin letters, except in Vietnamese.
        is_latin = letters[0] < _LATIN_END
        counted = self._letters + (self._beside_ascii if is_latin else self._crowded)
        if letters[0] == "đ":
            counted += self._crowded
        expected = {letter: counted[letter] for letter in letters if letter in counted}
        share = sum(expected.values()) / self.total
        return share if is_mixed else share - _SURPRISE * _surprise(expected, letters)


def _surprise(counted: Mapping[str, int], letters: str) -> float:
    """How much rarer, in nats a letter, the letters are in the language than what its texts mostly have."""
    depth = {letter: _STEEPNESS * index / len(letters) for index, letter in enumerate(letters)}
    total = sum(counted.values())
    mean = sum(depth[letter] * count for letter, count in counted.items()) / max(total, 1)
    weights = {letter: math.exp(-fall) for letter, fall in depth.items()}
    usual = sum(depth[letter] * weight for letter, weight in weights.items()) / sum(weights.values())
    return max(0.0, mean - usual) * total / (total + _FEW_LETTERS)


def _is_ascii_letter(character: str) -> bool:
    return character.isascii() and character.isalpha()


def _plausible(text: str) -> float:
    """Long texts are not all capitals; few Greek words have two accents; Cyrillic with few vowels is Hebrew or Cyrillic
    of another code page; and Thai without consonants is Hebrew.
    """
    letters = [character for character in text if character > "\x7f"]
    greek = _GREEK_WORD.findall(text)
    if sum(len(_ACCENTS.findall(word)) > 1 for word in greek) > _TWICE_ACCENTED * len(greek):
        return 0.7
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
        if character == _BROKEN:
            alone += _LETTERS_OF_A_BREAK
        elif character > "\x7f":
            wide += 1
            alone += _is_ascii_letter(before) and _is_ascii_letter(after)
    return max(0.0, 1 - alone / wide) if wide else 0.0


def _strange(text: str, common: frozenset[str]) -> float:
    """What a reading loses whose characters are none of the commonest: in a wrong one, hardly any is."""
    words = [
        character for character in text if character.isalpha() and character > "\u0fff" and not _is_kana(character)
    ]
    known = sum(character in common for character in words)
    return _STRANGE * (1 - min(1.0, known / (_KNOWN * len(words)))) if words else 0.0


def _is_kana(character: str) -> bool:
    return "\u3040" <= character <= "\u30ff"


def _chinese(text: str) -> float:
    """The share of the commonest characters, which GB 2312 puts first."""
    return _share_of_leads(text, "gb18030", range(0xA1, 0xD8), trails_from=0xA1)


def _traditional(text: str) -> float:
    return _share_of_leads(text, "big5hkscs", range(0xA1, 0xC7), trails_from=0x40)


def _korean(text: str) -> float:
    """All Hangul lies in a third of what Chinese would use."""
    hangul = sum("가" <= character <= "힣" and _is_common_hangul(character) for character in text)
    wide = sum(character >= "\u3000" for character in text)
    # Korean texts hold Chinese characters too; Chinese read as Korean shows hardly more Hangul than half.
    return min(1.0, 1.2 * hangul / wide) if wide else 0.0


def _is_common_hangul(character: str) -> bool:
    # The rest of the code page is for syllables that hardly occur, and what other code pages' letters look like.
    return all(byte >= 0xA1 for byte in character.encode("cp949"))


def _shift_jis(text: str) -> float:
    """Names and headlines have hardly any kana; their characters are of the commoner half, which comes first."""
    return max(_japanese(text), _NO_KANA * _share_of_leads(text, "cp932", range(0x81, 0x98), trails_from=0x40))


def _euc_jp(text: str) -> float:
    return max(_japanese(text), _NO_KANA * _share_of_leads(text, "euc_jp", range(0xA1, 0xD0), trails_from=0xA1))


def _japanese(text: str) -> float:
    """Kana are a good part of any Japanese text, and in nothing else."""
    kana = sum(map(_is_kana, text))
    odd = sum("\uff61" <= character <= "\uff9f" or "\x80" <= character < "\u3000" for character in text)
    wide = sum(character > "\x7f" for character in text)
    return min(1.0, 3 * (kana - odd) / wide) if wide else 0.0


def _share_of_leads(text: str, codec: str, leads: range, *, trails_from: int) -> float:
    """The share of characters that stand in the code page's rows of common ones."""
    wide = [character for character in text if character > "\x7f" and character != _BROKEN]
    if len(wide) < 2:
        return 0.0
    pairs = Counter(wide)
    common = 0
    for character, count in pairs.items():
        pair = character.encode(codec, errors="replace")
        common += count * (len(pair) == 2 and pair[0] in leads and pair[1] >= trails_from)
    return common / len(wide)


_MULTIBYTE: tuple[tuple[str, Callable[[str], float], frozenset[str]], ...] = (
    ("euc_jp", _euc_jp, KANJI),
    ("cp932", _shift_jis, KANJI),
    ("cp949", _korean, HANGUL),
    ("gb18030", _chinese, SIMPLIFIED),
    ("big5hkscs", _traditional, TRADITIONAL),
)
