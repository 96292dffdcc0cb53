"""What a report says of the colours of maps."""

import re

import numpy as np
import pytest

from xai_client.colours import scale_of
from xai_sidecar.evaluator.records import Frame, MapRecord, SampleKey, SampleRecord
from xai_sidecar.explainers.base import MapStatus
from xai_sidecar.runner.examples import Example, ShownMap
from xai_sidecar.runner.report import _overlay


@pytest.mark.parametrize(("low", "marks"), [(-0.5, ["-0.99 against", "0", "for 0.99"]), (0.25, ["0.25", "0.62", "1"])])
def test_a_map_has_the_legend_of_its_own_scale(low, marks):
    saliency = np.linspace(low, 1, 1000, dtype=np.float32).reshape(20, 50)
    record = SampleRecord(SampleKey("a", 0), 1.0, "m", Frame(20, 50), 1, 0.9, (1,))
    shown = MapRecord("rise", 1, {}, 0, MapStatus.OK, saliency, 1)
    html = _overlay(ShownMap(Example(record, 0.5, (1,)), shown, b"", None))
    assert re.findall(r"<span>(.*?)</span>", html) == marks
    stops = [tuple(map(int, each.split())) for each in re.findall(r"rgb\((.*?)\)", html)]
    table = scale_of(saliency).colours()
    assert (stops[0], stops[-1]) == (tuple(table[0]), tuple(table[254 if low < 0 else 255]))
