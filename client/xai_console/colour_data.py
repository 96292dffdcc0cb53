"""The SDK's colour scales as `components/saliency` takes them: the one source of what values are which colours."""

from __future__ import annotations

from typing import Any

from xai_client.colours import COLORMAPS, MIDDLE, PLAIN, SIGNED, ColourScale


def colour_data() -> dict[str, Any]:
    """Colours of each scale, in hexadecimal, and how opaque each of its levels is."""
    scales = {name: ColourScale(0.0, 1.0, name == SIGNED, name) for name in COLORMAPS}
    return {
        "tables": {name: scale.colours().tobytes().hex() for name, scale in scales.items()},
        "strength": {"plain": scales[PLAIN].strength().tolist(), "signed": scales[SIGNED].strength().tolist()},
        "middle": MIDDLE,
    }
