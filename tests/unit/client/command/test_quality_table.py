"""How good explanations are, as a person reads it."""

import math

import pytest

from xai_client.command.quality_table import accuracy_lines, drift_lines, evaluator_rows, quality_lines
from xai_client.command.tables import pairs
from xai_client.model_info import model_info
from xai_proto import explanation_pb2 as pb

EXPLAINERS = ["gradient", "guided_backprop", "deconvolution", "gradcam", "occlusion", "rise", "rise_plus"]
METRICS = {
    "faithfulness/naive": True,
    "faithfulness/deletion_auc": False,
    "faithfulness/insertion_auc": True,
    "localization/pointing_game": True,
    "localization/iosr": True,
    "class_sensitivity": True,
    "robustness": True,
}


def evaluator(state=pb.EVALUATOR_STATE_UP_TO_DATE, count=412, rate=0.05, window=86400, note="", metrics=()):
    message = pb.EvaluatorInfo(sample_rate=rate, state=state, window_sample_count=count, note=note)
    message.window.seconds = window
    for name in metrics:
        minimum = -1 if name.endswith("naive") else 0
        message.metrics.add(
            name=name, description=f"What {name} is.", higher_is_better=METRICS[name], minimum=minimum, maximum=1
        )
    return message


def explainer(name, composite=None, available=True, **measures):
    message = pb.ExplainerInfo(name=name, available=available, composite_score=composite)
    for metric, (mean, half, count) in measures.items():
        full = next((each for each in METRICS if each.endswith(metric)), metric)
        better = METRICS.get(full, True)
        message.quality.add(
            metric=full, mean=mean, confidence_half_width=half, sample_count=count, higher_is_better=better
        )
    return message


def table_of(model):
    return quality_lines(model_info(model))


def about(**fields):
    return pairs(evaluator_rows(model_info(pb.ModelInfo(**fields))))


def test_the_table():
    model = pb.ModelInfo(
        evaluator=evaluator(metrics=["faithfulness/naive", "faithfulness/deletion_auc", "localization/iosr"]),
        explainers=[
            explainer("gradient", naive=(-0.5, 0.0314, 412), deletion_auc=(0.25, math.nan, 1)),
            explainer("rise", 0.5),
            explainer("gradcam", 0.71249, naive=(0.75, 0.01, 412), deletion_auc=(0.125, 0.02, 400), iosr=(1, 0.5, 2)),
            explainer("rise_plus", available=False),
        ],
    )
    assert table_of(model) == [
        "mean ± half its 95 % interval (samples); ↑ higher or ↓ lower is better; 'auto' goes by composite",
        "",
        "explainer  composite ↑              naive ↑      deletion_auc ↓            iosr ↑",
        "gradcam          0.712   0.750 ±0.010 (412)  0.125 ±0.020 (400)  1.000 ±0.500 (2)",
        "rise             0.500                    –                   –                 –",
        "gradient             –  -0.500 ±0.031 (412)           0.250 (1)                 –",
        "",
        "naive        ↑  faithfulness/naive, -1 to 1: What faithfulness/naive is.",
        "deletion_auc ↓  faithfulness/deletion_auc, 0 to 1: What faithfulness/deletion_auc is.",
        "iosr         ↑  localization/iosr, 0 to 1: What localization/iosr is.",
    ]


def test_controls_stand_among_the_explainers():
    """Sorted by composite, with the skill of those that are compared, and why 'auto' leaves one out."""
    good, bad = explainer("rise", 0.7, iosr=(0.5, 0.1, 9)), explainer("gradcam", 0.5, iosr=(0.98, 0.1, 9))
    good.quality[0].skill.value = 0.256
    good.quality[0].interval_low, good.quality[0].interval_high = 0.4, 0.6
    bad.quality[0].skill.value = -0.02
    bad.quality[0].interval_low, bad.quality[0].interval_high = 0.88, 1
    bad.standing.objection = "does not beat control/blob"
    good.standing.eligible = True
    model = pb.ModelInfo(explainers=[bad, good], evaluator=evaluator())
    blob = model.evaluator.controls.add(name="control/blob", composite_score=0.625)
    blob.quality.add(metric="localization/iosr", mean=0.25, confidence_half_width=0.125, sample_count=9)
    model.evaluator.controls.add(name="control/edges")
    assert table_of(model) == [
        "mean ± half its 95 % interval (samples); ↑ higher or ↓ lower is better; 'auto' goes by composite;",
        "then the skill: 0 % is no better than the best control (a map that knows nothing), 100 % all that",
        "can be",
        "",
        "explainer     composite ↑                      iosr ↑",
        "rise                0.700       0.500 ±0.100 (9) +26%",
        "control/blob        0.625            0.250 ±0.125 (9)",
        "gradcam             0.500  0.980 0.880…1.000 (9)  -2%",
        "",
        "'auto' leaves out gradcam: it does not beat control/blob",
    ]


def test_maps_that_have_drifted_are_told():
    """By source and class; those within chance are not."""
    one = explainer("rise")
    one.weight_dependence.correlation = 0.25
    one.drift.add(statistic="border", source="requests", reference_mean=0.12, current_mean=0.584, ratio=1.5)
    one.drift.add(statistic="centre_x", source="requests", reference_mean=0.5, current_mean=0.25, ratio=1.0)
    one.drift.add(statistic="centre_y", source="requests", reference_mean=0.5, current_mean=0.5, ratio=0.99)
    one.drift.add(statistic="border", source="samples", class_label="cat", current_mean=1, ratio=1.25)
    info = model_info(pb.ModelInfo(explainers=[one, explainer("gradcam")]))
    assert drift_lines(info) == [
        "maps by rise have drifted (requests): border 0.12 → 0.58, centre_x 0.50 → 0.25",
        "maps by rise have drifted (samples of cat): border 0.00 → 1.00",
    ]
    assert [each.drifted for each in info.explainers["rise"].drift] == [True, True, False, True]
    assert info.explainers["rise"].weight_dependence.correlation == 0.25
    assert info.explainers["gradcam"].weight_dependence is None
    assert drift_lines(model_info(pb.ModelInfo(explainers=[explainer("gradcam")]))) == []


def test_seven_by_seven_fits_in_100_columns():
    measures = {name.rpartition("/")[2]: (-0.1234, 0.0456, 500) for name in METRICS}
    rows = [explainer(name, number / 10, **measures) for number, name in enumerate(EXPLAINERS)]
    lines = table_of(pb.ModelInfo(evaluator=evaluator(metrics=METRICS), explainers=rows))
    assert max(map(len, lines)) <= 100
    for name in EXPLAINERS:
        cells = [line for line in lines if line.split()[:1] == [name]]
        assert len(cells) == 2
        assert sum(line.count("-0.123 ±0.046 (500)") for line in cells) == len(METRICS)
    # All rows of a table are as wide as its header.
    for head in (number for number, line in enumerate(lines) if line.startswith("explainer")):
        assert len({len(line) for line in lines[head : head + 8]}) == 1
    assert [line.split()[0] for line in lines[3:10]] == EXPLAINERS[::-1]


def test_without_an_evaluator_the_measures_tell_what_there_is():
    lines = table_of(pb.ModelInfo(explainers=[explainer("rise", deletion_auc=(0.25, 0.125, 50))]))
    assert lines[2:] == [
        "explainer  composite ↑     deletion_auc ↓",
        "rise                 –  0.250 ±0.125 (50)",
    ]


def test_metrics_with_the_same_ending_keep_their_whole_name():
    fields = {"a/x": (0.5, 0.1, 9), "b/x": (0.25, 0.1, 9)}
    lines = table_of(pb.ModelInfo(explainers=[explainer("rise", **fields)]))
    assert lines[2].split() == ["explainer", "composite", "↑", "a/x", "↑", "b/x", "↑"]


def test_an_explainer_that_is_gone_is_listed_while_it_has_measures():
    lines = table_of(pb.ModelInfo(explainers=[explainer("rise", available=False, iosr=(0.5, 0.1, 9))]))
    assert lines[3].startswith("rise ")


def test_nothing_sampled():
    assert about() == ["quality   not measured: this server samples no requests"]
    assert table_of(pb.ModelInfo(explainers=[explainer("rise")])) == []


@pytest.mark.parametrize(
    ("state", "count", "window", "line"),
    [
        (1, 0, 86400, "no recent traffic; 0 pictures in the last 24 h"),
        (2, 412, 86400, "up to date with 412 pictures in the last 24 h"),
        (3, 1, 5400, "measuring new ones; 1 picture in the last 90 min"),
        (9, 2, 45, "2 pictures in the last 45 s"),
    ],
)
def test_what_the_evaluator_does(state, count, window, line):
    model = pb.ModelInfo(evaluator=evaluator(state, count, 0.05, window), explainers=[explainer("rise")])
    assert pairs(evaluator_rows(model_info(model))) == [
        f"quality   5 % of the requests are sampled; {line}",
        "          no request has been sampled yet",
        "          nothing has been measured yet",
    ]
    assert table_of(model) == []


def test_the_last_sample_and_the_note():
    message = evaluator(1, 0, rate=0.001, note="No picture was sampled in the last 24 h; " * 4)
    message.last_sample_time.FromJsonString("2024-05-01T12:00:00Z")
    lines = about(evaluator=message, explainers=[explainer("rise", 0.5, iosr=(0.5, 0.1, 9))])
    assert lines[:2] == [
        "quality   0.1 % of the requests are sampled; no recent traffic; 0 pictures in the last 24 h",
        "          last sample 2024-05-01 12:00:00 UTC",
    ]
    assert " ".join(" ".join(lines[2:]).split()) == message.note.strip()
    assert max(map(len, lines)) <= 100
    assert "nothing has been measured yet" not in lines[-1]


# ------------------------------------------------------------------------------------------------ accuracy


def confusion(class_id, label, *counts):
    names = ("true_positives", "false_positives", "false_negatives", "true_negatives")
    return pb.ClassConfusion(class_id=class_id, label=label, **dict(zip(names, counts, strict=True)))


def accuracy_of(*classes, count=8, share=0.75):
    message = evaluator()
    message.accuracy.CopyFrom(pb.Accuracy(picture_count=count, share=share, classes=classes))
    return model_info(pb.ModelInfo(evaluator=message))


def test_accuracy_by_class():
    info = accuracy_of(confusion(282, "tiger cat", 6, 2, 0, 0), confusion(7, "dog", 0, 0, 2, 6))
    assert accuracy_lines(info) == [
        "accuracy  75.0% of 8 pictures with ground truth",
        "",
        "label      class  right  wrongly predicted  missed  precision  recall",
        "tiger cat    282      6                  2       0      0.750   1.000",
        "dog            7      0                  0       2          –   0.000",
    ]


def test_of_many_classes_the_most_frequent_are_shown():
    lines = accuracy_lines(accuracy_of(*(confusion(each, str(each), 1, 0, 0, 0) for each in range(12)), count=1))
    assert lines[0] == "accuracy  75.0% of 1 picture with ground truth"
    assert len(lines) == 14
    assert lines[-1] == "and 2 more; --json has them"


def test_no_accuracy_without_ground_truth():
    assert accuracy_lines(model_info(pb.ModelInfo(evaluator=evaluator()))) == []
    assert accuracy_lines(model_info(pb.ModelInfo())) == []


def test_precision_and_recall():
    (one,) = accuracy_of(confusion(0, "a", 6, 2, 4, 1)).evaluator.accuracy.classes
    assert (one.precision, one.recall) == (6 / 8, 6 / 10)
    (said,) = accuracy_of(pb.ClassConfusion(true_positives=6, precision=0.5, recall=0)).evaluator.accuracy.classes
    assert (said.precision, said.recall) == (0.5, 0), "a server that prefers some requests knows better"
    (none,) = accuracy_of(confusion(0, "a", 0, 0, 0, 1)).evaluator.accuracy.classes
    assert (none.precision, none.recall) == (None, None)
