"""Converts pictures to model inputs, and keeps the region of the picture that an input covers.

    bytes ─ decode ─┐
                    ├─► upright picture ─ prepare ─► Prepared: float32 (C, H, W), and its region on that picture
    pixels ─ from_pixels ─┘
    bytes ─ decode_for ─ prepare_decoded ─► Prepared: the same, decoded at no larger a scale than is needed
    model input ─ check_model_input ─► Prepared without a picture

A saliency map has the frame of the model input: stretched over the `Region` it fits the upright picture. Everything
here may be called from several threads at once.
"""

from xai_sidecar.imaging.decoding import decode, from_pixels, load_png, read_header
from xai_sidecar.imaging.files import Header
from xai_sidecar.imaging.geometry import Region
from xai_sidecar.imaging.preparing import InputSpec, Prepared, check_model_input, prepare, prepare_decoded
from xai_sidecar.imaging.reading import decode_for, read, reading_work

__all__ = [
    "Header",
    "InputSpec",
    "Prepared",
    "Region",
    "check_model_input",
    "decode",
    "decode_for",
    "from_pixels",
    "load_png",
    "prepare",
    "prepare_decoded",
    "read",
    "read_header",
    "reading_work",
]
