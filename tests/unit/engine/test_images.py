"""From the bytes of an image to a tensor: parity with the same steps by hand, and every refusal."""

import base64
import contextlib
import io
import re
import struct
import subprocess
import sys
import threading
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from apps.inference.engine import images
from apps.inference.engine.errors import Overloaded
from apps.inference.engine.image_files import (
    MAX_IMAGE_BYTES,
    MOST_EXIF,
    MOST_PARTS,
    MOST_SCANS,
    ImageFile,
    WrongImage,
    file_from,
)
from apps.inference.engine.images import MOST_SIDE, Budget, example_file, read_image
from apps.registry.image_spec import JPEG, PNG, ColourMode, ImageSpec, Layout, Resampling
from apps.registry.signature import Dtype, TensorSpec
from tests.factories.images import Pixels, b64, file_of, noise

GREY, RGB = ColourMode.GREY, ColourMode.RGB


def spec_of(image: ImageSpec, dtype: Dtype = Dtype.FLOAT32) -> TensorSpec:
    return TensorSpec("image", dtype, (-1, *image.array_shape), image=image)


def read(content: bytes, image: ImageSpec, dtype: Dtype = Dtype.FLOAT32) -> Any:
    return read_image(ImageFile(content), spec_of(image, dtype), Budget())[0]


def refused(content: bytes, image: ImageSpec | None = None, claimed: str | None = None) -> str:
    spec = spec_of(image or ImageSpec(4, 4))
    with pytest.raises(WrongImage) as caught:
        read_image(ImageFile(content, claimed), spec, Budget())
    assert caught.value.detail.endswith(".")
    return caught.value.detail


# --- what it becomes ------------------------------------------------------------------------------


def test_numbers_are_scaled_and_normalised_by_channel_as_by_hand() -> None:
    pixels = noise(5, 7, 3)
    spec = ImageSpec(5, 7, scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    wanted = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    found = read(file_of(pixels), spec)
    assert (found.shape, found.dtype) == ((3, 5, 7), np.float32)
    assert np.abs(found - wanted.transpose(2, 0, 1)).max() < 1e-6
    assert found.flags.c_contiguous


def test_the_channels_stand_last_where_the_model_wants_them_so() -> None:
    pixels = noise(5, 7, 3)
    spec = ImageSpec(5, 7, layout=Layout.NHWC, mean=(0.1, 0.2, 0.3))
    found = read(file_of(pixels), spec)
    assert np.abs(found - (pixels / 255 - [0.1, 0.2, 0.3])).max() < 1e-6


@pytest.mark.parametrize("dtype", [Dtype.FLOAT16, Dtype.FLOAT32, Dtype.FLOAT64])
def test_the_tensor_has_the_inputs_own_type(dtype: Dtype) -> None:
    pixels = noise(3, 3)
    found = read(file_of(pixels), ImageSpec(3, 3, mode=GREY, scale=0.5), dtype)
    assert found.dtype == np.dtype(dtype.value)
    assert np.array_equal(found[0], (pixels * 0.5).astype(dtype.value))


def test_half_precision_is_rounded_once_at_the_end() -> None:
    spec = ImageSpec(1, 1, mode=GREY, scale=1000.0, mean=(200_000.0,))
    assert read(file_of(np.full((1, 1), 255, np.uint8)), spec, Dtype.FLOAT16)[0, 0, 0] == 55_000


def test_a_uint8_input_gets_the_pixels_themselves() -> None:
    pixels = noise(4, 6, 3)
    found = read(file_of(pixels), ImageSpec(4, 6, layout=Layout.NHWC, scale=1.0), Dtype.UINT8)
    assert found.dtype == np.uint8
    assert np.array_equal(found, pixels)


@pytest.mark.parametrize("resampling", list(Resampling))
def test_another_size_is_resized_as_pillow_does_by_that_name(resampling: Resampling) -> None:
    pixels = noise(30, 20, 3)
    wanted = Image.fromarray(pixels).resize((9, 7), Image.Resampling[resampling.name])
    spec = ImageSpec(7, 9, resampling=resampling, layout=Layout.NHWC, scale=1.0)
    assert np.array_equal(read(file_of(pixels), spec), np.asarray(wanted))


def test_colour_becomes_grey_and_grey_becomes_colour() -> None:
    pixels = noise(4, 4, 3)
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    assert np.array_equal(read(file_of(pixels), ImageSpec(4, 4, mode=GREY, scale=1.0))[0], grey)
    colour = read(file_of(grey), ImageSpec(4, 4, mode=RGB, scale=1.0))
    assert all(np.array_equal(one, grey) for one in colour)


def test_a_jpeg_and_a_progressive_one_are_read_too() -> None:
    pixels = noise(16, 16, 3)
    for options in ({}, {"progressive": True}):
        content = file_of(pixels, "JPEG", quality=95, **options)
        wanted = np.asarray(Image.open(io.BytesIO(content)))
        found = read(content, ImageSpec(16, 16, layout=Layout.NHWC, scale=1.0))
        assert np.array_equal(found, wanted)


def upright_of(pixels: Pixels, orientation: int) -> Pixels:
    """Turn back by numpy what a camera held in this orientation (EXIF 2.3, table 6)."""
    turned = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels, -1),
        7: np.rot90(pixels, 2).swapaxes(0, 1),
        8: np.rot90(pixels),
    }
    return turned[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_is_turned_upright_as_its_camera_says(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.zeros((8, 16), dtype=np.uint8)
    pixels[:4, :8] = 255
    content = file_of(pixels, kind, exif=exif)
    wanted = upright_of(pixels, orientation)
    found = read(content, ImageSpec(wanted.shape[0], wanted.shape[1], mode=GREY, scale=1.0))[0]
    assert np.abs(found - wanted).max() < 3


@pytest.mark.parametrize("orientation", [0, 9, 60000])
def test_an_orientation_that_means_nothing_turns_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = noise(4, 4)
    found = read(file_of(pixels, exif=exif), ImageSpec(4, 4, mode=GREY, scale=1.0))
    assert np.array_equal(found[0], pixels)


def test_damaged_exif_says_nothing() -> None:
    pixels = noise(4, 4)
    content = file_of(pixels, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert np.array_equal(read(content, ImageSpec(4, 4, mode=GREY, scale=1.0))[0], pixels)


def test_what_is_transparent_is_seen_on_white() -> None:
    pixels = np.zeros((1, 3, 4), dtype=np.uint8)
    pixels[0, :, 3] = (0, 255, 128)
    found = read(file_of(pixels), ImageSpec(1, 3, mode=GREY, scale=1.0))
    assert found.ravel().tolist() == [255, 0, 127]


def test_a_palette_with_a_transparent_colour_is_seen_on_white() -> None:
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), mode=None).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    written = io.BytesIO()
    image.save(written, format="PNG", transparency=0)
    found = read(written.getvalue(), ImageSpec(1, 2, layout=Layout.NHWC, scale=1.0))
    assert found[0].tolist()[0] == [255, 255, 255]


@pytest.mark.parametrize("mode", [GREY, RGB])
@pytest.mark.parametrize("kind", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_put_on_white_band_by_band(
    kind: str, mode: ColourMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, written = Image.fromarray(noise(9, 7, 4)), io.BytesIO()
    extra = {"transparency": 3} if kind == "P" else {}
    source = source.convert("RGB").quantize(16) if kind == "P" else source.convert(kind)
    source.save(written, format="PNG", **extra)
    known = Image.open(io.BytesIO(written.getvalue())).convert("RGBA")
    white = Image.new("RGBA", known.size, (255, 255, 255, 255))
    wanted = Image.alpha_composite(white, known).convert("L" if mode is GREY else "RGB")
    sizes, real = [], Image.alpha_composite

    def composite(below: Image.Image, above: Image.Image) -> Image.Image:
        sizes.append(above.width * above.height)
        return real(below, above)

    monkeypatch.setattr(images, "BAND_PIXELS", 14)
    monkeypatch.setattr(Image, "alpha_composite", composite)
    spec = ImageSpec(9, 7, mode=mode, layout=Layout.NHWC, scale=1.0)
    assert np.array_equal(read(written.getvalue(), spec).squeeze(), np.asarray(wanted))
    assert sizes == [14, 14, 14, 14, 7]


def test_sixteen_bits_of_grey_keep_their_upper_eight() -> None:
    deep = np.array([[0, 255, 256, 65535]], dtype=np.uint16)
    written = io.BytesIO()
    Image.fromarray(deep).save(written, format="PNG")
    found = read(written.getvalue(), ImageSpec(1, 4, mode=GREY, scale=1.0))
    assert found.ravel().tolist() == [0, 0, 1, 255]


def test_what_is_recorded_names_the_file_and_its_own_size() -> None:
    content = file_of(noise(30, 20, 3))
    _, facts = read_image(ImageFile(content, PNG), spec_of(ImageSpec(4, 4)), Budget())
    body = facts.body()
    assert (body["content_type"], body["size"]) == (PNG, len(content))
    assert (body["width"], body["height"]) == (20, 30)
    assert len(str(body["sha256"])) == 64


def test_the_made_up_example_is_read_by_its_own_rules_and_short() -> None:
    for kinds in ((PNG,), (JPEG,), (PNG, JPEG)):
        image = ImageSpec(8, 8, content_types=kinds)
        file = example_file(image)
        assert read_image(file, spec_of(image), Budget())[0].shape == (3, 8, 8)
        assert len(base64.b64encode(file.content)) < 700


# --- what is refused ------------------------------------------------------------------------------


def rejected(value: Any) -> tuple[str, str]:
    with pytest.raises(WrongImage) as caught:
        file_from(value)
    assert caught.value.detail.endswith(".")
    return caught.value.step, caught.value.detail


@pytest.mark.parametrize(
    "text",
    ["$$$$", "QUJD\n", "QUJ", "QUJD=", "QQ==QQ==", "QUJ-", "data:image/png;base64,QUJD", "é"],
)
def test_what_is_not_strict_base64_is_refused(text: str) -> None:
    step, detail = rejected({"b64": text})
    assert step == "/b64"
    assert "base64" in detail


@pytest.mark.parametrize("value", [None, 3, ["QUJD"], True])
def test_a_file_is_a_text(value: Any) -> None:
    assert rejected({"b64": value})[0] == "/b64"


def test_a_field_that_means_nothing_is_refused() -> None:
    assert rejected({"b64": "QUJD", "a/b": 1})[0] == "/a~1b"
    assert rejected({"b64": "QUJD", "content_type": 1})[0] == "/content_type"
    assert rejected([1, 2])[0] == ""


def test_ten_megabytes_are_counted_decoded() -> None:
    text = base64.b64encode(bytes(MAX_IMAGE_BYTES)).decode()
    assert len(file_from({"b64": text}).content) == MAX_IMAGE_BYTES
    assert "10 MB" in rejected(b64(bytes(MAX_IMAGE_BYTES + 1)))[1]
    assert "10 MB" in rejected({"b64": "A" * (2 * MAX_IMAGE_BYTES)})[1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"GIF89a" + bytes(20), "GIF"),
        (b"RIFF\x00\x00\x00\x00WEBP", "WebP"),
        (b"II*\x00" + bytes(20), "TIFF"),
        (b"BM" + bytes(20), "BMP"),
        (b"\x00\x00\x00\x20ftypheic", "HEIF"),
        (b"%PDF-1.7", "PDF"),
        (b"  <svg xmlns", "SVG"),
        (b"hello", "no image"),
        (b"\x89PNG", "no image"),
    ],
)
def test_another_kind_of_file_is_named(content: bytes, words: str) -> None:
    assert words in refused(content)


def test_only_the_kinds_that_the_model_takes_are_taken() -> None:
    content = file_of(noise(4, 4), "JPEG")
    assert "takes image/png" in refused(content, ImageSpec(4, 4, content_types=(PNG,)))


def test_the_type_that_is_said_must_be_what_the_bytes_are() -> None:
    content = file_of(noise(4, 4))
    assert "is said to be 'image/jpeg' and is image/png" in refused(content, claimed=JPEG)
    read_image(ImageFile(content, "IMAGE/PNG "), spec_of(ImageSpec(4, 4)), Budget())


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_file_that_ends_too_early_is_refused_wherever_it_ends(kind: str) -> None:
    content = file_of(noise(40, 40, 3), kind)
    for end in range(9, len(content) - 20, len(content) // 40):
        assert re.search("too early", refused(content[:end], ImageSpec(40, 40)))


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, *before: bytes, data: bytes | None = None) -> bytes:
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    line = bytes(1 + (width + 7) // 8)
    packed = zlib.compress(line * height if data is None else data)
    parts = [head, *before, png_chunk(b"IDAT", packed), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.fixture
def undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when anything is decoded."""

    def load(_: Any) -> None:
        raise AssertionError("A file over the limits was decoded.")

    monkeypatch.setattr(images, "_load", load)


@pytest.mark.usefixtures("undecoded")
@pytest.mark.parametrize(
    ("width", "height"), [(5001, 5000), (2**31 - 1, 2**31 - 1), (2**20, 2**20)]
)
def test_a_bomb_is_refused_by_its_header_before_it_is_decoded(width: int, height: int) -> None:
    assert f"{width} x {height} pixels" in refused(png(width, height, data=b""))


def test_the_limit_of_pixels_is_the_models_own() -> None:
    content = file_of(noise(10, 10))
    read(content, ImageSpec(4, 4, max_pixels=100))
    assert "at most 99" in refused(content, ImageSpec(4, 4, max_pixels=99))


def test_the_images_of_one_call_share_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    content, spec, budget = file_of(noise(10, 10)), spec_of(ImageSpec(4, 4)), Budget(250)
    for _ in range(2):
        read_image(ImageFile(content), spec, budget)
    monkeypatch.setattr(images, "_load", lambda _: pytest.fail("decoded"))
    with pytest.raises(WrongImage, match="megapixels"):
        read_image(ImageFile(content), spec, budget)


@pytest.mark.usefixtures("undecoded")
def test_a_png_of_very_many_parts_is_refused() -> None:
    content = png(4, 4, png_chunk(b"tEXt", b"") * (MOST_PARTS + 1))
    assert f"more than {MOST_PARTS} parts" in refused(content)


@pytest.mark.usefixtures("undecoded")
def test_a_jpeg_of_very_many_parts_is_refused() -> None:
    whole = file_of(noise(4, 4), "JPEG")
    content = whole[:2] + b"\xff\xfe\x00\x02" * (MOST_PARTS + 1) + whole[2:]
    assert f"more than {MOST_PARTS} parts" in refused(content)
    assert "damaged" in refused(whole[:2] + b"\xff" * 1000 + whole[2:])
    assert "damaged" in refused(whole[:20] + b"junk" + whole[20:])


@pytest.mark.usefixtures("undecoded")
def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    whole = file_of(noise(64, 64), "JPEG", progressive=True)
    at = whole.rindex(b"\xff\xda")
    scan = whole[at:-2]
    assert "scans" in refused(whole[:-2] + scan * MOST_SCANS + whole[-2:])


@pytest.mark.usefixtures("undecoded")
@pytest.mark.parametrize(("width", "height"), [(MOST_SIDE + 1, 1), (1, MOST_SIDE + 1)])
def test_a_strip_is_refused_because_resizing_it_costs_its_length(width: int, height: int) -> None:
    assert f"at most {MOST_SIDE:,} on a side" in refused(png(width, height))


def test_the_longest_side_is_still_taken() -> None:
    assert read(png(MOST_SIDE, 1), ImageSpec(2, 2)).shape == (3, 2, 2)


@pytest.mark.usefixtures("undecoded")
def test_a_jpeg_whose_exif_comes_in_very_many_pieces_is_refused() -> None:
    whole = file_of(noise(4, 4), "JPEG")
    piece = b"\xff\xe1\x00\x0cExif\x00\x00" + bytes(4)
    assert "pieces of EXIF" in refused(whole[:2] + piece * (MOST_EXIF + 1) + whole[2:])


def test_exif_in_a_few_pieces_is_taken() -> None:
    whole = file_of(noise(4, 4), "JPEG")
    piece = b"\xff\xe1\x00\x0cExif\x00\x00" + bytes(4)
    content = whole[:2] + piece * MOST_EXIF + whole[2:]
    assert np.array_equal(read(content, ImageSpec(4, 4)), read(whole, ImageSpec(4, 4)))


def test_a_damaged_checksum_is_refused() -> None:
    content = bytearray(file_of(noise(8, 8)))
    content[29] ^= 1
    assert "damaged" in refused(bytes(content))


def test_more_images_at_once_than_there_are_turns_wait_and_then_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(images, "_turns", threading.BoundedSemaphore(1))
    monkeypatch.setattr(images, "TURN_SECONDS", 0.01)
    content = file_of(noise(4, 4))
    with images._turns, pytest.raises(Overloaded):
        read(content, ImageSpec(4, 4))
    assert read(content, ImageSpec(4, 4)).shape == (3, 4, 4)


def test_a_refusal_gives_its_turn_back() -> None:
    for _ in range(images.TURNS + 1):
        refused(file_of(noise(8, 8))[:-30])


# --- hostile bytes --------------------------------------------------------------------------------

SEEDS = [
    file_of(noise(12, 9, 3)),
    file_of(noise(12, 9, 3), "JPEG"),
    file_of(noise(12, 9), "JPEG", progressive=True),
    png(9, 12),
]


@settings(max_examples=300, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.floats(0, 0.9999), st.integers(0, 255)), max_size=12),
    cut=st.floats(0, 1),
    junk=st.binary(max_size=30),
)
@example(seed=SEEDS[1], changes=[(0.0, 0)], cut=1.0, junk=b"")
def test_hostile_bytes_are_an_array_or_a_refusal_and_nothing_else(
    seed: bytes, changes: list[tuple[float, int]], cut: float, junk: bytes
) -> None:
    content = bytearray(seed)
    for place, value in changes:
        content[int(place * len(content))] = value
    hostile = bytes(content[: int(cut * len(content))]) + junk
    image = ImageSpec(6, 6, max_pixels=10_000)
    with contextlib.suppress(WrongImage):
        array, facts = read_image(ImageFile(hostile), spec_of(image), Budget())
        assert array.shape == (3, 6, 6)
        assert facts.width * facts.height <= 10_000


def test_a_process_without_image_models_never_loads_pillow() -> None:
    code = (
        "import sys; import apps.inference.engine.pipeline; "
        "assert not [name for name in sys.modules if name.split('.')[0] == 'PIL']"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
