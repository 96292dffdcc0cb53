"""The SDK's colour scales as `components/saliency` takes them: the one source of what values are which colours."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any, Final

from xai_client.colours import COLORMAPS, MIDDLE, PLAIN, SIGNED, ColourScale

COLOURS_PATH: Final = "/colours.json"


@cache
def colours_url() -> str:
    """Where browsers get them; another address if they are others, so that they may be kept."""
    return f"{COLOURS_PATH}?{hashlib.sha256(colours_json()).hexdigest()[:12]}"


@cache
def colours_json() -> bytes:
    """What browsers get."""
    return json.dumps(colour_data()).encode()


def colour_data() -> dict[str, Any]:
    """Colours of each scale, in hexadecimal, and how opaque each of its levels is."""
    scales = {name: ColourScale(0.0, 1.0, name == SIGNED, name) for name in COLORMAPS}
    return {
        "tables": {name: scale.colours().tobytes().hex() for name, scale in scales.items()},
        "strength": {"plain": scales[PLAIN].strength().tolist(), "signed": scales[SIGNED].strength().tolist()},
        "middle": MIDDLE,
    }
