"""Where pictures and their parts lie on each other."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class Region:
    """A part of a picture, or the part that a model input covers, in pixels with fractions.

    Pixel x covers the span from x to x + 1: a whole picture is (0, 0, width, height). With a letterbox it reaches
    beyond the picture.
    """

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, eq=False)
class Decoded:
    """An upright picture as it was decoded, which may have been at a reduced scale.

    Attributes:
        picture: Of mode "L" or "RGB".
        size: (width, height) of the picture at full scale.
        frame: Where all of the picture lies on `picture`, in pixels of that. A reduced picture has whole pixels at its
            edges, of which only a part may belong to the frame.
    """

    picture: Image.Image
    size: tuple[int, int]
    frame: Region

    @classmethod
    def whole(cls, picture: Image.Image) -> Decoded:
        """A picture at full scale."""
        return cls(picture, picture.size, Region(0, 0, *picture.size))

    def place(self, region: Region) -> Region:
        """A region of the picture at full scale, in pixels of `picture`."""
        frame, (width, height) = self.frame, self.size
        across, down = (frame.right - frame.left) / width, (frame.bottom - frame.top) / height
        return Region(
            frame.left + region.left * across,
            frame.top + region.top * down,
            frame.left + region.right * across,
            frame.top + region.bottom * down,
        )
