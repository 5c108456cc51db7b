"""From the bytes of an image to the numbers that a model takes.

The order is fixed, because a model was trained with it: decode, turn upright as EXIF says, put on
white what is transparent, bring to grey or colour, resize, ``(pixel * scale - mean) / std``, lay
out. Pillow does the first five, with its PNG and JPEG decoders and no other, and is imported by the
first image: a process without such models never loads it.
"""

import hashlib
import io
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from apps.inference.engine.errors import DeadlinePassed, Overloaded
from apps.inference.engine.image_files import (
    ImageFile,
    WrongImage,
    damaged,
    kind_of,
    require_simple,
)
from apps.registry.image_spec import PNG, ColourMode, ImageSpec, Layout
from apps.registry.signature import Dtype, TensorSpec

if TYPE_CHECKING:
    from PIL.Image import Image

# Of all images of one call, before and after they are made to the model's size.
CALL_PIXELS = 100_000_000
CALL_BYTES = 256 * 1024**2
# What resizing prepares grows with the longest side, whatever the number of pixels is.
MOST_SIDE = 65_535
# A decoded image may take 100 MB, and many callers may send one at once.
TURNS = 4
TURN_SECONDS = 5.0
ORIENTATION = 0x0112
WHITE = (255, 255, 255, 255)
# Put on white at once; more would hold up the calls beside this one.
BAND_PIXELS = 500_000
_MODES = {ColourMode.GREY: "L", ColourMode.RGB: "RGB"}

_turns = threading.BoundedSemaphore(TURNS)


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is recorded of an image instead of its bytes.

    Attributes:
        size: Bytes of the file.
        sha256: Of the file, hex.
        width: Pixels as stored, before it is turned upright.
        height: The same.
    """

    content_type: str
    size: int
    sha256: str
    width: int
    height: int

    def body(self) -> dict[str, str | int]:
        """Return plain JSON values."""
        return {
            "content_type": self.content_type,
            "size": self.size,
            "sha256": self.sha256,
            "width": self.width,
            "height": self.height,
        }


@dataclass(slots=True)
class Budget:
    """Pixels that one call may still have decoded."""

    pixels: int = CALL_PIXELS

    def spend(self, pixels: int) -> None:
        """Take an image's pixels off.

        Raises:
            WrongImage: The call has more than one call may have.
        """
        self.pixels -= pixels
        if self.pixels < 0:
            raise WrongImage(
                f"takes the images of this call over {CALL_PIXELS // 10**6} megapixels. Send "
                "fewer or smaller images at once.",
                "/b64",
            )


def most_images(spec: ImageSpec, dtype: Dtype) -> int:
    """Count the images of one call whose tensor a process can hold; one always fits."""
    return max(1, CALL_BYTES // (int(np.prod(spec.array_shape)) * np.dtype(dtype.value).itemsize))


def read_image(
    file: ImageFile, spec: TensorSpec, budget: Budget, *, until: float = math.inf
) -> tuple[NDArray[np.generic], ImageFacts]:
    """Turn a file into one row of an input.

    Args:
        file: As it was sent.
        spec: Of an input that has ``image``.
        budget: What the call may still have decoded.
        until: ``time.monotonic()`` second at which nobody waits for it any more.

    Returns:
        An array of shape ``spec.image.array_shape`` and the input's dtype, and what is recorded.

    Raises:
        WrongImage: It is no image, of another kind, too large, or damaged.
        Overloaded: Too many images are being decoded in this process.
        DeadlinePassed: Nobody waits for it any more.
    """
    wanted = spec.image
    if wanted is None:
        raise ValueError(f"The input {spec.name} takes no images.")
    left = until - time.monotonic()
    if left <= 0:
        raise DeadlinePassed("The images were not read in time. Send fewer or smaller images.")
    kind = kind_of(file, wanted)
    require_simple(file.content, kind)
    if not _turns.acquire(timeout=min(TURN_SECONDS, left)):
        raise Overloaded("Too many images are being decoded at this moment. Try again.")
    try:
        pixels, width, height = _pixels(file.content, kind, wanted, budget)
        numbers = numbers_of(pixels, wanted, spec.dtype)
    finally:
        _turns.release()
    facts = ImageFacts(
        kind, len(file.content), hashlib.sha256(file.content).hexdigest(), width, height
    )
    return numbers, facts


def numbers_of(pixels: NDArray[np.uint8], spec: ImageSpec, dtype: Dtype) -> NDArray[np.generic]:
    """Scale, normalise and lay out pixels.

    Args:
        pixels: Of shape ``(height, width, channels)``.
        spec: How.
        dtype: Of the result.
    """
    laid = pixels.transpose(2, 0, 1) if spec.layout is Layout.NCHW else pixels
    if dtype is Dtype.UINT8:
        return np.ascontiguousarray(laid)
    # Half precision is computed in single: 255 times a scale may pass what it holds on the way.
    wide: Any = np.float64 if dtype is Dtype.FLOAT64 else np.float32
    axes = (-1, 1, 1) if spec.layout is Layout.NCHW else (1, 1, -1)
    mean, std = (np.array(one, dtype=wide).reshape(axes) for one in (spec.means, spec.stds))
    numbers: NDArray[Any] = np.array(laid, dtype=wide, order="C")
    numbers *= wide(spec.scale)  # in place: a tensor of the largest size takes 400 MB
    numbers -= mean
    numbers /= std
    return numbers.astype(dtype.value, copy=False)


def _pixels(
    content: bytes, kind: str, spec: ImageSpec, budget: Budget
) -> tuple[NDArray[np.uint8], int, int]:
    """Decode and bring to the model's size; also tell the size of the file's own image."""
    image = _opened(content, kind)
    width, height = image.size
    if width * height > spec.max_pixels:
        raise WrongImage(
            f"has {width} x {height} pixels; the model takes at most {spec.max_pixels:,} of them.",
            "/b64",
        )
    if max(width, height) > MOST_SIDE:
        raise WrongImage(
            f"has {width} x {height} pixels; an image has at most {MOST_SIDE:,} on a side.", "/b64"
        )
    budget.spend(width * height)
    _load(image)
    ready = _resized(_coloured(_upright(image), spec.mode), spec)
    array = np.asarray(ready, dtype=np.uint8)
    return array.reshape(spec.height, spec.width, spec.channels), width, height


def _opened(content: bytes, kind: str) -> "Image":
    """Read the header; nothing is decoded yet."""
    from PIL.JpegImagePlugin import JpegImageFile  # noqa: PLC0415 - only for those who need it
    from PIL.PngImagePlugin import PngImageFile  # noqa: PLC0415 - the same

    try:
        stream = io.BytesIO(content)
        return PngImageFile(stream) if kind == PNG else JpegImageFile(stream)
    except MemoryError:
        raise
    except Exception as error:  # a hostile file may make a parser raise anything
        raise damaged() from error


def _load(image: "Image") -> None:
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # the same for a decoder
        raise damaged() from error


def _upright(image: "Image") -> "Image":
    """Turn an image as its camera says it was held."""
    from PIL.Image import Transpose  # noqa: PLC0415 - loaded by now

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    try:
        turn = turns.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - EXIF that cannot be read says nothing, as in every viewer
        return image
    return image if turn is None else image.transpose(turn)


def _coloured(image: "Image", mode: ColourMode) -> "Image":
    """Bring to 8 bits of grey or colour; what is transparent is seen on white."""
    from PIL import Image as images  # noqa: N813, PLC0415 - Pillow's module has the class's name

    if image.mode.startswith("I"):  # 16 bits of grey; Pillow would cut values off at 255
        deep = np.asarray(image).astype(np.uint32)
        image = images.fromarray((deep >> 8).astype(np.uint8))
    elif image.has_transparency_data:
        return _on_white(image, mode)
    return image.convert(_MODES[mode])


def _on_white(image: "Image", mode: ColourMode) -> "Image":
    """Put an image on white, a band at a time: no other thread runs while Pillow does one."""
    from PIL import Image as images  # noqa: N813, PLC0415 - Pillow's module has the class's name

    seen = images.new(_MODES[mode], image.size)
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        band = image.crop(box).convert("RGBA")
        white = images.new("RGBA", band.size, WHITE)
        seen.paste(images.alpha_composite(white, band).convert(_MODES[mode]), box)
    return seen


def _resized(image: "Image", spec: ImageSpec) -> "Image":
    from PIL.Image import Resampling  # noqa: PLC0415 - loaded by now

    if image.size == (spec.width, spec.height):
        return image
    return image.resize((spec.width, spec.height), Resampling[spec.resampling.name])


def example_file(spec: ImageSpec, seed: int = 7) -> ImageFile:
    """Make a small image of random blocks, to try a model with when nobody gave one."""
    from PIL import Image as images  # noqa: N813, PLC0415 - Pillow's module has the class's name

    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    kind = spec.content_types[0]
    written = io.BytesIO()
    # A colour JPEG of any size is longer than what a report may show.
    images.fromarray(blocks if kind == PNG else blocks[..., 0]).save(
        written, format=kind.rpartition("/")[2].upper()
    )
    return ImageFile(written.getvalue(), kind)


def facts_bodies(facts: Sequence[ImageFacts]) -> list[dict[str, str | int]]:
    """Return what is recorded of several images."""
    return [one.body() for one in facts]
