"""Bytes to text: marks, wide encodings without one, code pages, damage; and what is no text."""

import random
import unicodedata

import pytest

from memory.adapters.reading.decoding import decode

GERMAN = "Der Rahmen ist grün, die Gabel weiß; die Länge beträgt 60 cm und kostet 5 € mehr."
FRENCH = "L'été dernier, François a mangé une crêpe à l'hôtel. Où êtes-vous, cœur ?"
POLISH = "Zażółć gęślą jaźń. Rower kosztuje dwa tysiące złotych, gwarancja dwa lata."
CZECH = "Příliš žluťoučký kůň úpěl ďábelské ódy."
TURKISH = "Bu bir Türkçe metindir: şişe, ığdır, çiğ köfte, öğretmen."  # noqa: RUF001
RUSSIAN = "Велосипед стоит двадцать тысяч рублей. Гарантия на раму действует десять лет."
UKRAINIAN = "Привіт, це український текст про велосипеди та їхню гарантію."
GREEK = "Αυτό είναι ένα ελληνικό κείμενο για ποδήλατα."  # noqa: RUF001
HEBREW = "זהו מסמך בעברית על אופניים."
ARABIC = "هذا مستند باللغة العربية عن الدراجات."
THAI = "สวัสดีครับ นี่คือเอกสารภาษาไทยเกี่ยวกับจักรยาน"
JAPANESE = "これは日本語のテキストです。自転車の整備についての説明書。"
CHINESE = "这是一个中文文档。自行车维修说明书,请仔细阅读。"
TAIWANESE = "這是一個中文文檔。自行車維修說明書,請仔細閱讀。"
HEADLINE = "第三四半期決算報告書の提出"
ICELANDIC = "Hjólið er úr áli og þyngdin er ellefu kíló; ábyrgðin gildir í tvö ár hér á landi."
BELARUSIAN = "Ровар каштуе дваццаць тысяч рублёў, гарантыя на раму дзейнічае дзесяць гадоў ўсюды."
LITHUANIAN = (
    "Šis dviratis kainuoja du tūkstančius eurų, o rėmui suteikiama dešimties metų garantija. Ačiū, kad pirkote čia."
)
LATVIAN = "Šis velosipēds maksā divus tūkstošus eiro, un rāmim ir desmit gadu garantija. Paldies, ka pērkat šeit, ķēdi!"
VIETNAMESE = "Chiếc xe đạp này được bảo hành mười năm tại tất cả các cửa hàng của chúng tôi."
ROMANIAN = "Bicicleta costă două mii de lei şi ţeava are garanţie; întrebaţi în magazin, vă rugăm."
HEBREW_AND_NAMES = "הורדתי את Google Chrome ל־Windows אתמול, והקובץ לא נפתח."
KOREAN = "이것은 한국어 문서입니다. 자전거 정비 설명서."


@pytest.mark.parametrize("repeated", [1, 10])
@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        *((GERMAN, encoding) for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "iso8859-15")),
        *((GERMAN, encoding) for encoding in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")),
        *((JAPANESE + "\n", encoding) for encoding in ("utf-16-le", "utf-16-be", "utf-32-le")),
        *((GERMAN.replace("€", "EUR"), encoding) for encoding in ("cp437", "cp850", "mac_roman")),
        *((FRENCH, encoding) for encoding in ("cp1252", "iso8859-15")),
        *((text, encoding) for text in (POLISH, CZECH) for encoding in ("cp1250", "iso8859-2", "cp852")),
        (TURKISH, "cp1254"),
        *((RUSSIAN, encoding) for encoding in ("cp1251", "koi8-r", "cp866", "iso8859-5")),
        *((UKRAINIAN, encoding) for encoding in ("cp1251", "koi8-u")),
        *((GREEK, encoding) for encoding in ("cp1253", "iso8859-7")),
        (HEBREW, "cp1255"),
        (ARABIC, "cp1256"),
        (THAI, "cp874"),
        *((JAPANESE, encoding) for encoding in ("cp932", "euc_jp", "iso2022_jp")),
        *((CHINESE, encoding) for encoding in ("gb2312", "gbk", "gb18030")),
        (TAIWANESE, "big5"),
        *((KOREAN, encoding) for encoding in ("euc_kr", "iso2022_kr")),
        *((CHINESE.replace(",", "，"), encoding) for encoding in ("utf-16-le", "utf-16-be", "hz")),  # noqa: RUF001
        *((HEADLINE, encoding) for encoding in ("cp932", "utf-16-le")),
        *((RUSSIAN, encoding) for encoding in ("mac_cyrillic", "cp855")),
        *((UKRAINIAN, encoding) for encoding in ("mac_cyrillic", "cp1125")),
        *((BELARUSIAN, encoding) for encoding in ("cp1251", "iso8859-5")),
        *((GREEK, encoding) for encoding in ("cp737", "cp869")),
        *((HEBREW, encoding) for encoding in ("iso8859-8", "cp862")),
        (HEBREW_AND_NAMES, "cp1255"),
        *((ARABIC, encoding) for encoding in ("iso8859-6", "cp720")),
        *((ICELANDIC, encoding) for encoding in ("cp1252", "cp850", "cp861")),
        *((text, encoding) for text in (LITHUANIAN, LATVIAN) for encoding in ("cp1257", "iso8859-13", "cp775")),
        (TURKISH, "cp857"),
        *((ROMANIAN, encoding) for encoding in ("cp1250", "iso8859-2")),
        ("東京都千代田区霞が関", "euc_jp"),
        (HEADLINE, "euc_jp"),
        ("El niño comió piñas mañana.", "mac_roman"),
        ("Съешь же ещё этих мягких булок.", "mac_cyrillic"),
        ("Le cœur de l'œuvre, sa sœur et les œufs du bœuf.", "iso8859-15"),
        (
            "Το όνομά μας είναι γνωστό σε όλη την πόλη. Ο πελάτης περίμενε στο δωμάτιο.",  # noqa: RUF001
            "iso8859-7",
        ),
    ],
)
def test_text_in_any_encoding(text: str, encoding: str, repeated: int) -> None:
    whole = text * repeated
    decoded = decode(whole.encode(encoding))
    assert decoded is not None
    assert decoded.text == whole
    assert decoded.damaged == 0


@pytest.mark.parametrize("text", ["naïve", "Café", "5 £ a day", "«Guillemets» – “quotes”", "Müller, Gómez, Jørgensen"])  # noqa: RUF001
def test_a_few_letters_beyond_ascii_are_western(text: str) -> None:
    decoded = decode(f"A long English sentence with {text} in it.".encode("cp1252"))
    assert decoded is not None
    assert text in decoded.text


def test_a_broken_place_does_not_turn_the_rest_into_another_code_page() -> None:
    decoded = decode((GERMAN * 10).encode() + b"\xff" + GERMAN.encode())
    assert decoded is not None
    assert decoded.text == GERMAN * 10 + "\ufffd" + GERMAN
    assert decoded.damaged == 1
    assert decoded.note == "1 characters of it are damaged and could not be decoded"


def test_a_long_line_of_wide_letters_is_told_by_its_beginning() -> None:
    whole = CHINESE * 6_000
    decoded = decode(whole.encode("gb18030"))
    assert decoded is not None
    assert decoded.text == whole


@pytest.mark.parametrize(
    ("text", "encoding", "broken"),
    [
        (RUSSIAN, "cp1251", b"\x98"),
        (JAPANESE, "euc_jp", b"\xff"),
        (JAPANESE, "cp932", b"\x98"),
        (CHINESE, "gb18030", b"\xff"),
        (KOREAN, "euc_kr", b"\xff\xff\xff"),
        (GREEK, "cp1253", b"\xd2"),
    ],
)
def test_a_broken_place_of_a_code_page_is_told(text: str, encoding: str, broken: bytes) -> None:
    data = (text * 5).encode(encoding)
    decoded = decode(data + broken + b"\n" + data)
    assert decoded is not None
    first, _, rest = decoded.text.partition("\n")
    assert (first.rstrip("\ufffd"), rest) == (text * 5, text * 5) or first.startswith(text * 4)
    assert decoded.damaged == decoded.text.count("\ufffd") > 0
    assert "could not be decoded" in (decoded.note or "")


def test_tones_are_part_of_their_letters() -> None:
    tones = {"\u0300", "\u0301", "\u0303", "\u0309", "\u0323"}
    parts = (unicodedata.normalize("NFD", letter) for letter in VIETNAMESE)
    split = "".join(
        unicodedata.normalize("NFC", "".join(c for c in part if c not in tones))
        + "".join(c for c in part if c in tones)
        for part in parts
    )
    for declared in (None, "windows-1258"):
        decoded = decode(split.encode("cp1258"), declared)
        assert decoded is not None
        assert decoded.text == VIETNAMESE


@pytest.mark.parametrize(("declared", "used"), [("iso-8859-1", "cp1251"), ("windows-1252", "koi8-r")])
def test_a_sender_who_is_surely_wrong_is_not_believed(declared: str, used: str) -> None:
    decoded = decode(RUSSIAN.encode(used), declared)
    assert decoded is not None
    assert decoded.text == RUSSIAN
    assert decoded.note == f"its encoding is not certain; it was read as {used}"


def test_a_broken_place_leaves_the_declared_encoding_in_force() -> None:
    decoded = decode((JAPANESE * 10).encode("euc_jp") + b"\xff", "euc-jp")
    assert decoded is not None
    assert (decoded.text, decoded.damaged) == (JAPANESE * 10 + "\ufffd", 1)


def test_a_guess_that_could_be_another_says_so() -> None:
    decoded = decode("Ось".encode("cp1251"))
    assert decoded is not None
    assert (decoded.text, decoded.guessed) == ("Ось", "cp1251")
    assert "not certain" in (decoded.note or "")
    assert all(
        found is not None and found.note is None for found in (decode(b"plain"), decode(GERMAN.encode("cp1252")))
    )


@pytest.mark.parametrize(
    ("declared", "used"), [("koi8-r", "koi8-r"), ("iso-8859-1", "cp1252"), ("no such", "cp1251"), ("idna", "cp1251")]
)
def test_a_declared_encoding_is_used_when_it_is_one(declared: str, used: str) -> None:
    text = "“Theme” for 5 €" if used == "cp1252" else "Тема письма: вилки."
    decoded = decode(text.encode(used), declared)
    assert decoded is not None
    assert decoded.text == text


@pytest.mark.parametrize(
    ("declared", "used", "text"),
    [
        ("x-sjis", "cp932", "ｱｲｳ ⅰ№℡ 外字"),  # noqa: RUF001
        ("Shift_JIS", "cp932", "①の説明"),
        ("gb2312", "gb18030", "朱镕基"),
        ("euc-kr", "cp949", "똠방각하"),
        ("iso-8859-9", "cp1254", "“tırnak” – 5 €"),  # noqa: RUF001
        ("tis-620", "cp874", "“ไทย”"),
        ("x-cp1251", "cp1251", "да"),
    ],
)
def test_declared_names_mean_what_browsers_take_them_for(declared: str, used: str, text: str) -> None:
    decoded = decode(text.encode(used), declared)
    assert decoded is not None
    assert decoded.text == text


@pytest.mark.parametrize("page", ['<?xml version="1.0" encoding="koi8-r"?><a>{}</a>', "<meta charset=koi8-r>{}"])
def test_a_page_declares_its_own(page: str) -> None:
    decoded = decode(page.format("да").encode("koi8-r"))
    assert decoded is not None
    assert "да" in decoded.text


@pytest.mark.parametrize(
    "data",
    [
        random.Random(1).randbytes(200_000),
        random.Random(2).randbytes(60),
        bytes(range(256)),
        b"\x7fELF\x02\x01\x01" + bytes(200) + b"\x03\x00>\x00\x01\x00",
        b"\x01\x02\x00",
        b"a\x00\x00\x00\x01\x02\x03\x04" * 100,
    ],
)
def test_what_is_no_text(data: bytes) -> None:
    assert decode(data) is None


def test_a_stray_zero_does_not_make_a_text_binary() -> None:
    decoded = decode(b"A log line.\n" * 50 + b"\x00" + b"Another line.\n")
    assert decoded is not None
    assert decoded.text.endswith("Another line.\n")
