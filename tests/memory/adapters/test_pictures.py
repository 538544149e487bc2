"""Pictures of every form as a model gets them: small, upright, on white, and never more than a child may hold."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from memory.adapters.documents import GuardedReader
from memory.adapters.reading.media import MAX_PICTURE_SIDE
from memory.adapters.reading.pictures import TOO_LARGE
from memory.errors import RejectedFile
from tests.memory.adapters.conftest import Read
from tests.memory.adapters.paper import blank_png, saved

HEIC = Path(__file__).parent / "notice.heic"

See = Callable[[bytes], Image.Image]


@pytest.fixture
def see(reader: GuardedReader, tmp_path: Path) -> See:
    """The picture as a model gets it."""

    def small(data: bytes) -> Image.Image:
        path = tmp_path / "stored"
        path.write_bytes(data)
        picture = Image.open(io.BytesIO(reader.small_picture(path)))
        assert (picture.format, picture.mode) == ("JPEG", "RGB")
        return picture

    return small


def half_dark(mode: str = "RGB") -> Image.Image:
    """Left half dark, right half light."""
    image = Image.new("L", (200, 100), 250)
    image.paste(5, (0, 0, 100, 100))
    return image.convert(mode)


def is_half_dark(picture: Image.Image) -> bool:
    grey = np.asarray(picture.convert("L"), dtype=int)
    middle = grey.shape[1] // 2
    return bool(grey[:, : middle - 8].mean() < 60 and grey[:, middle + 8 :].mean() > 200)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGB", "JPEG"),
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
        ("P", "PNG"),
        ("1", "PNG"),
        ("LA", "PNG"),
        ("RGBA", "PNG"),
        ("RGBA", "WEBP"),
        ("P", "GIF"),
        ("RGB", "BMP"),
        ("CMYK", "TIFF"),
        ("1", "TIFF"),
        ("RGB", "AVIF"),
        ("RGB", "PPM"),
        ("L", "PPM"),
        ("1", "PPM"),
    ],
)
def test_every_form_is_seen_as_it_is(see: See, mode: str, kind: str) -> None:
    assert is_half_dark(see(saved(half_dark(mode), kind)))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_of_sixteen_bits_none_are_cut_off(see: See, kind: str) -> None:
    # Twelve bits of a camera or scanner: everything lies above what eight bits hold, far below sixteen.
    values = np.full((100, 200), 4_000, dtype=np.uint16)
    values[:, :100] = 600
    assert is_half_dark(see(saved(Image.fromarray(values), kind)))


def test_what_is_transparent_is_white(see: See) -> None:
    picture = see(saved(Image.new("RGBA", (64, 64), (0, 0, 0, 0)), "PNG"))
    assert np.asarray(picture).min() > 250


def test_a_photo_stands_upright(see: See) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    turned = half_dark().rotate(90, expand=True)
    picture = see(saved(turned, "JPEG", exif=exif))
    assert picture.size == (200, 100)
    assert is_half_dark(picture)


def test_a_photo_of_an_apple_device_is_known_and_seen(read: Read, see: See) -> None:
    document = read("IMG_1.jpg", HEIC.read_bytes())
    assert (document.content_type, document.awaits) == ("image/heic", "caption")
    assert see(HEIC.read_bytes()).size == (640, 90)


def test_a_scan_of_netpbm_and_a_large_tiff_are_pictures_under_any_name(read: Read) -> None:
    for data, media_type in (
        (saved(half_dark(), "PPM"), "image/x-portable-anymap"),
        (saved(half_dark(), "TIFF", big_tiff=True), "image/tiff"),
    ):
        document = read("notes.txt", data)
        assert (document.content_type, document.awaits, document.blocks) == (media_type, "caption", [])


@pytest.mark.parametrize("text", ["P5 is a chip of 2004 with 12 pins", "P6 12 monkeys"])
def test_a_text_that_begins_like_a_scan_is_a_text(read: Read, text: str) -> None:
    assert read("note.txt", text.encode()).blocks[0].text == text


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_every_kind_that_says_how_it_was_held_stands_upright(see: See, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = see(saved(half_dark().rotate(90, expand=True), kind, exif=exif))
    assert picture.size == (200, 100)
    assert is_half_dark(picture)


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_of_every_animation_the_first_frame_is_seen(see: See, kind: str) -> None:
    assert is_half_dark(see(saved(half_dark(), kind, save_all=True, append_images=[Image.new("RGB", (200, 100))])))


def test_of_an_animation_the_first_frame_is_seen(see: See) -> None:
    frames = [half_dark(), Image.new("RGB", (200, 100), "white")]
    assert is_half_dark(see(saved(frames[0], "GIF", save_all=True, append_images=frames[1:])))


def test_what_is_large_is_made_small_and_what_is_tiny_has_room(see: See) -> None:
    assert see(saved(Image.new("RGB", (6000, 3000), "red"), "JPEG")).size == (MAX_PICTURE_SIDE, MAX_PICTURE_SIDE // 2)
    assert min(see(saved(Image.new("RGB", (1, 1), "red"), "PNG")).size) >= 28


@pytest.mark.parametrize("size", [(50_000, 50_000), (100_000, 1_000)])
def test_a_picture_of_too_many_pixels_is_kept_and_says_so(read: Read, see: See, size: tuple[int, int]) -> None:
    data = blank_png(*size)
    document = read("huge.png", data)
    assert (document.blocks, document.note, document.awaits) == ([], TOO_LARGE, None)
    with pytest.raises(RejectedFile):
        see(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "HEIC"])
def test_what_is_cut_off_is_rejected(see: See, kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (300, 300, 3), dtype=np.uint8))
    whole = HEIC.read_bytes() if kind == "HEIC" else saved(noise, kind)
    with pytest.raises(RejectedFile, match="damaged"):
        see(whole[: len(whole) // 2])
