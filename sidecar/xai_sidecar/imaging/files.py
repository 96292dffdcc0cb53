"""Headers of picture files, and files stripped to what a decoder needs.

Each format has a function that reads the size in bounded time, and one that removes what no pixel depends on: comments,
profiles, thumbnails, further frames and directories. Those may be corrupt, or crafted to keep a decoder busy.
"""

from __future__ import annotations

from dataclasses import dataclass

from xai_sidecar.errors import PictureError

MOST_CHUNKS = 1 << 16
"""Most chunks, strips or tiles of a file; encoders write a few thousand for the largest pictures."""


@dataclass(frozen=True)
class Header:
    """The properties of a picture's file, read without decoding.

    Attributes:
        format: "JPEG", "PNG", "WebP", "GIF", "BMP" or "TIFF".
        width: In pixels, as stored.
        height: In pixels, as stored.
        decoding_cost: Approximate time to decode a pixel, over that of a baseline JPEG.
        scales: The whole factors by which a decoder can read it smaller in less time, ascending.
    """

    format: str
    width: int
    height: int
    decoding_cost: float = 1.0
    scales: tuple[int, ...] = (1,)

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height

    @property
    def work(self) -> float:
        """Approximate work of decoding, in pixels of a baseline JPEG."""
        return self.pixels * self.decoding_cost


@dataclass(frozen=True)
class Stripped:
    """A file reduced to what its pixels depend on.

    Attributes:
        data: The file.
        orientation: As EXIF numbers it, 1 to 8.
        white_level: The value that is white, of greys or colours with more than 8 bits; None if the file has none.
    """

    data: bytes
    orientation: int = 1
    white_level: int | None = None


def broken(name: str, why: str) -> PictureError:
    """The error for a file that cannot be decoded."""
    return PictureError(
        f"The {name} picture cannot be decoded: {why}. "
        "Check that it was sent whole and opens in a viewer, or save it again as PNG or JPEG."
    )
