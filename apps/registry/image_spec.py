"""How an image becomes the numbers of an input: part of a signature; plain Python.

Only the words are here, read and checked. Images themselves are opened by ``inference.engine``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from apps.registry.plain_json import bound, whole, word, wrong

PNG = "image/png"
JPEG = "image/jpeg"
IMAGE_TYPES = (PNG, JPEG)
# An image of 25 megapixels takes 75 MB of memory once it is decoded.
MAX_PIXELS = 25_000_000
MOST_PIXELS = 100_000_000
MAX_SIDE = 4096


class ColourMode(StrEnum):
    """What an image is turned into before it becomes numbers."""

    GREY = "grey"
    RGB = "rgb"


class Layout(StrEnum):
    """Order of a tensor's axes: rows, channels, height and width."""

    NCHW = "nchw"
    NHWC = "nhwc"


class Resampling(StrEnum):
    """How pixels are computed when an image is made larger or smaller; Pillow's names."""

    NEAREST = "nearest"
    BOX = "box"
    BILINEAR = "bilinear"
    HAMMING = "hamming"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """How an image becomes the numbers of an input: ``(pixel * scale - mean) / std``.

    Attributes:
        height: Pixels of the tensor's height axis.
        width: Pixels of its width axis.
        mode: Grey (one channel) or colour (three).
        layout: Order of the tensor's axes.
        resampling: How an image of another size is brought to height and width.
        scale: Factor of a pixel's value, which is 0 to 255.
        mean: Taken off, by channel; empty for nothing.
        std: Divided by, by channel; empty for one.
        content_types: Kinds of file that are taken.
        max_pixels: Height times width of the largest image that is decoded.
    """

    height: int
    width: int
    mode: ColourMode = ColourMode.RGB
    layout: Layout = Layout.NCHW
    resampling: Resampling = Resampling.BILINEAR
    scale: float = 1 / 255
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    content_types: tuple[str, ...] = IMAGE_TYPES
    max_pixels: int = MAX_PIXELS

    @property
    def channels(self) -> int:
        """Values of one pixel."""
        return 1 if self.mode is ColourMode.GREY else 3

    @property
    def array_shape(self) -> tuple[int, int, int]:
        """Shape of one image as the model takes it."""
        if self.layout is Layout.NCHW:
            return (self.channels, self.height, self.width)
        return (self.height, self.width, self.channels)

    @property
    def means(self) -> tuple[float, ...]:
        """What is taken off, with a number for each channel."""
        return self.mean or (0.0,) * self.channels

    @property
    def stds(self) -> tuple[float, ...]:
        """What is divided by, with a number for each channel."""
        return self.std or (1.0,) * self.channels

    @property
    def keeps_pixels(self) -> bool:
        """Whether the numbers are the pixels themselves."""
        return self.scale == 1 and not any(self.mean) and set(self.std) <= {1.0}


def image_to_json(image: ImageSpec) -> dict[str, Any]:
    """Write how an image becomes numbers as plain JSON values, with everything said."""
    return {
        "content_types": list(image.content_types),
        "mode": image.mode.value,
        "height": image.height,
        "width": image.width,
        "resampling": image.resampling.value,
        "layout": image.layout.value,
        "scale": image.scale,
        "mean": list(image.mean),
        "std": list(image.std),
        "max_pixels": image.max_pixels,
    }


_IMAGE_FIELDS = frozenset(image_to_json(ImageSpec(1, 1)))


def image_from_json(body: object, at: str, *, whole_pixels: bool) -> ImageSpec:
    """Read what is said about images.

    Args:
        body: A JSON object.
        at: Pointer to it.
        whole_pixels: The tensor holds pixels as they are, so that is what nothing said means.

    Raises:
        Invalid: A field is missing or wrong; ``problems`` point at it.
    """
    if not isinstance(body, Mapping):
        raise wrong(at, "`image` is an object with `height` and `width`.")
    if unknown := sorted(str(name) for name in body.keys() - _IMAGE_FIELDS):
        known = ", ".join(sorted(_IMAGE_FIELDS))
        raise wrong(at, f"`image` has no field `{unknown[0][:80]}`; the fields are {known}.")
    mode = word(ColourMode, body, "mode", ColourMode.RGB, at)
    channels = 1 if mode is ColourMode.GREY else 3
    plain = 1.0 if whole_pixels else 1 / 255
    scale = bound(body.get("scale"), f"{at}/scale")
    return ImageSpec(
        height=whole(body, "height", None, MAX_SIDE, at),
        width=whole(body, "width", None, MAX_SIDE, at),
        mode=mode,
        layout=word(Layout, body, "layout", Layout.NCHW, at),
        resampling=word(Resampling, body, "resampling", Resampling.BILINEAR, at),
        scale=plain if scale is None else scale,
        mean=_by_channel(body, "mean", channels, at),
        std=_by_channel(body, "std", channels, at),
        content_types=_content_types(body.get("content_types"), f"{at}/content_types"),
        max_pixels=whole(body, "max_pixels", MAX_PIXELS, MOST_PIXELS, at),
    )


def _by_channel(body: Mapping[str, object], name: str, channels: int, at: str) -> tuple[float, ...]:
    value = body.get(name)
    if value is None or value == []:
        return ()
    found = value if isinstance(value, list) else [value] * channels
    if len(found) != channels or any(one is None for one in found):
        detail = f"`{name}` is a number, or a list with one number for each of {channels} channels."
        raise wrong(f"{at}/{name}", detail)
    numbers = (bound(one, f"{at}/{name}") for one in found)
    return tuple(one for one in numbers if one is not None)


def _content_types(value: object, at: str) -> tuple[str, ...]:
    if value is None:
        return IMAGE_TYPES
    if not isinstance(value, list) or not value or any(one not in IMAGE_TYPES for one in value):
        known = " and ".join(IMAGE_TYPES)
        raise wrong(at, f"`content_types` is a list; it may hold {known}.")
    return tuple(one for one in IMAGE_TYPES if one in value)
