"""What the charts of drift show."""

from datetime import datetime, timezone
from types import SimpleNamespace

from xai_client import HistoryPoint, QualityHistory
from xai_console.drift_charts import shapes


def test_agreement_has_a_line_for_each_pair_and_its_reference():
    points = tuple(HistoryPoint(number, 5, 0.25 * number, 0.1) for number in range(3))
    past = QualityHistory(
        start=datetime.fromtimestamp(1000, timezone.utc),
        bin_seconds=60.0,
        bin_count=3,
        scores={},
        shapes={("gradcam", "agreement/rise"): points, ("gradcam", "border"): points[:1]},
        traffic=(),
        current=SimpleNamespace(),
        reference_shapes={("gradcam", "agreement/rise"): HistoryPoint(0, 9, 0.75, 0.1)},
    )
    (line,) = shapes(past, "agreement")["series"]
    assert line["name"] == "gradcam · rise"
    assert line["data"] == [[1_000_000.0, 0.0], [1_060_000.0, 0.25], [1_120_000.0, 0.5]]
    assert "0.75" in str(line["markLine"])
    assert [each["name"] for each in shapes(past, "border")["series"]] == ["gradcam"]
    assert shapes(past, "centre_x") == {}
