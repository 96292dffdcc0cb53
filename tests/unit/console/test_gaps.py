"""What was not measured, or is not told, is never shown as 0."""

import math
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from xai_client.quality import ConfusionCell
from xai_console import quality_table
from xai_console.figures import percent
from xai_console.pages import classes
from xai_console.quality_charts import by_class
from xai_console.quality_table import QualityTable
from xai_console.words import Words

PAGE = SimpleNamespace(say=Words("en"))


def test_a_share_that_is_no_number_is_a_dash():
    assert percent(math.nan) == "–"
    assert percent(0.0) == "0.0 %"


def test_a_class_that_was_not_measured_has_no_bar_and_one_that_scores_0_has():
    def measured(class_id, goodness):
        measure = SimpleNamespace(metric="srg", goodness=goodness, sample_count=9 - class_id)
        return SimpleNamespace(class_id=class_id, label=f"class {class_id}", measure=measure)

    explainers = {
        "gradcam": SimpleNamespace(classes=(measured(0, 0.0), measured(1, 0.5))),
        "rise": SimpleNamespace(classes=(measured(1, 0.25),)),
    }
    chart = by_class(PAGE, SimpleNamespace(explainers=explainers), metric="srg")
    assert [each["data"] for each in chart["series"]] == [[0.0, 0.5], ["-", 0.25]]
    assert all(each["barMinHeight"] > 0 for each in chart["series"])


@pytest.mark.parametrize(("truncated", "said"), [(False, "classes.none_wrong"), (True, "classes.none_of")])
def test_where_not_all_confusions_are_told_it_does_not_say_that_there_is_none(monkeypatch, truncated, said):
    text = MagicMock()
    monkeypatch.setattr(classes, "text", text)
    right = [ConfusionCell(each, "", each, "", 1) for each in range(7)]
    quality = SimpleNamespace(confusion=right, confusion_truncated=truncated)
    classes._confusion(PAGE, SimpleNamespace(), quality)
    assert text.call_args.args[0] == PAGE.say(said, count="7")


@pytest.mark.parametrize(("truncated", "said"), [(False, "classes.shown"), (True, "classes.shown_of_most")])
def test_confusions_that_were_cut_are_not_shown_as_all(truncated, said):
    table = classes._Confusions.__new__(classes._Confusions)
    table._page, table._classes, table._count = PAGE, [], 30
    table._wrong = [ConfusionCell(each, "", each + 1, "", 1) for each in range(7)]
    table._quality = SimpleNamespace(confusion=table._wrong, confusion_truncated=truncated)
    table._table, table._shown, table._more = MagicMock(), MagicMock(), MagicMock()
    table._show()
    assert table._shown.set_text.call_args.args[0] == PAGE.say(said, shown=7, count="7")


def test_a_composite_score_of_0_comes_before_one_that_is_not_known(monkeypatch):
    table = QualityTable.__new__(QualityTable)
    scores = {"unknown": None, "worst": 0.0, "best": 0.9}
    explainers = {name: SimpleNamespace(explainer=name, is_control=False) for name in scores}
    table._quality = SimpleNamespace(explainers=explainers)
    table._composite = lambda each: scores[each.explainer]
    table._head, table._shown, ranked = lambda: "", MagicMock(), []
    table._row = lambda each, score, rank: ranked.append((each.explainer, rank)) or ""
    monkeypatch.setattr(quality_table, "tag", MagicMock(side_effect=lambda *parts, **_: parts))
    table._draw()
    assert ranked == [("best", 1), ("worst", 2), ("unknown", 2)]
