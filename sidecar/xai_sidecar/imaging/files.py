"""What is known of a picture's file before a decoder sees it.

Each format has a module that reads the size, in little and bounded time, and one that hands on what the pixels need:
without comments, profiles, thumbnails, further frames and directories. Those may be broken, or be there to keep a
decoder busy, and no pixel depends on them.
"""

from __future__ import annotations

from dataclasses import dataclass

from xai_sidecar.errors import PictureError

MOST_PARTS = 1 << 16
"""Chunks, strips or the like of a file; encoders write a few thousand of the largest pictures."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        format: "JPEG", "PNG", "WebP", "GIF", "BMP" or "TIFF".
        width: In pixels, as stored.
        height: In pixels, as stored.
        effort: What a pixel takes to decode, as a multiple of one of a baseline JPEG, about.
    """

    format: str
    width: int
    height: int
    effort: float = 1.0

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height

    @property
    def work(self) -> float:
        """What decoding takes, in pixels of a baseline JPEG, about."""
        return self.pixels * self.effort


@dataclass(frozen=True)
class Stripped:
    """A file of nothing but what the pixels need.

    Attributes:
        data: The file.
        orientation: EXIF's, 1 to 8.
        brightest: The value that is white in greys of more than 8 bits, if the file says so.
    """

    data: bytes
    orientation: int = 1
    brightest: int | None = None


def broken(name: str, why: str) -> PictureError:
    """A file that no decoder need be asked about."""
    return PictureError(
        f"The {name} picture cannot be decoded: {why}. "
        "Check that it was sent whole and opens in a viewer, or save it again as PNG or JPEG."
    )
