"""Headers of picture files, and files stripped to what a decoder needs.

Each format has a function that reads the size, in little and bounded time, and one that removes comments, profiles,
thumbnails, further frames and directories. Those may be broken, or be made to keep a decoder busy, and no pixel depends
on them.
"""

from __future__ import annotations

from dataclasses import dataclass

from xai_sidecar.errors import PictureError

MOST_PARTS = 1 << 16
"""Most chunks or strips of a file; encoders write a few thousand for the largest pictures."""


@dataclass(frozen=True)
class Header:
    """The properties of a picture's file, read without decoding.

    Attributes:
        format: "JPEG", "PNG", "WebP", "GIF", "BMP" or "TIFF".
        width: In pixels, as stored.
        height: In pixels, as stored.
        effort: Approximate time to decode a pixel, as a multiple of that for a baseline JPEG.
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
        """Approximate work of decoding, in pixels of a baseline JPEG."""
        return self.pixels * self.effort


@dataclass(frozen=True)
class Stripped:
    """A file without anything that the pixels do not need.

    Attributes:
        data: The file.
        orientation: EXIF's, 1 to 8.
        brightest: The value that is white in greys of more than 8 bits, if the file says so.
    """

    data: bytes
    orientation: int = 1
    brightest: int | None = None


def broken(name: str, why: str) -> PictureError:
    """The error for a file that cannot be decoded."""
    return PictureError(
        f"The {name} picture cannot be decoded: {why}. "
        "Check that it was sent whole and opens in a viewer, or save it again as PNG or JPEG."
    )
