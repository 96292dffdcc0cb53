"""A sample as a file: plain data, and nothing in it can end the element that it stands in."""

import json
from datetime import datetime, timezone

import numpy as np
import pytest

from xai_client import SaliencyMap
from xai_client.samples import MaskingCurve
from xai_client.types import Region
from xai_console.evidence.html_page import _embedded
from xai_console.evidence.record import plain
from xai_console.masking import smallest_step

NASTY = "</script><script>alert(1)</script><!--"


def test_data_cannot_end_its_element():
    text = _embedded({"label": NASTY})
    assert "<" not in text
    assert json.loads(text) == {"label": NASTY}


def test_what_is_no_json_is_made_plain():
    shown = SaliencyMap(3, "lynx", "ok", np.zeros((2, 2), np.float32), float("nan"))
    time = datetime(2026, 1, 2, tzinfo=timezone.utc)
    made = plain({"map": shown, "region": Region(0, 1, 2, 3), "time": time, 4: {5}})
    assert made == {
        "map": {
            "class_id": 3, "label": "lynx", "status": "ok", "standard_error": None, "standard_error_bound": None,
            "precision_error": None,
        },
        "region": {"left": 0, "top": 1, "right": 2, "bottom": 3},
        "time": "2026-01-02T00:00:00+00:00",
        "4": [5],
    }  # fmt: skip
    json.dumps(made, allow_nan=False)


@pytest.mark.parametrize(
    ("kind", "probabilities", "enough", "step"),
    [
        ("insertion", (0.0, 0.2, 0.6, 0.5), 0.5, 2),
        ("insertion", (0.0, 0.2, 0.6, 0.5), 0.2, 1),
        ("insertion", (0.0, 0.2, 0.6, 0.5), 0.7, None),
        ("deletion", (0.9, 0.7, 0.5, 0.1), 0.5, 3),
        ("deletion", (0.9, 0.7, 0.5, 0.1), 0.05, None),
    ],
)
def test_the_smallest_region_that_is_enough(kind, probabilities, enough, step):
    curve = MaskingCurve(kind, "black", (0, 10, 20, 30), probabilities, 0, 0.5)
    assert smallest_step(curve, enough) == step
