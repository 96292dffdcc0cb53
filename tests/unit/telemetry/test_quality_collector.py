"""The quality series: what is known appears, and what is not has no series."""

from prometheus_client import CollectorRegistry

from xai_sidecar.telemetry import QualityCollector, QualityFigures, ScoreFigures

RISE, GRADCAM = ("rise", "robustness"), ("gradcam", "robustness")


def shown(figures):
    """By name and label values in the order of the labels' names."""
    registry = CollectorRegistry()
    registry.register(QualityCollector(lambda: figures))
    samples = [sample for family in registry.collect() for sample in family.samples]
    found = {(one.name, *(value for _, value in sorted(one.labels.items()))): one.value for one in samples}
    assert len(found) == len(samples)
    return found


def state_of(name):
    return {
        ("xai_evaluator_state", each): float(each == name) for each in ("off", "no_traffic", "up_to_date", "working")
    }


def test_of_nothing_there_are_the_state_and_the_counts():
    figures = QualityFigures(
        "no_traffic",
        scores={RISE: ScoreFigures(), GRADCAM: ScoreFigures()},
        composites={"rise": None, "gradcam": None},
        confusion_counts={"cat": (0, 0, 0, 0), "other": (0, 0, 0, 0)},
    )
    assert shown(figures) == {
        **state_of("no_traffic"),
        ("xai_evaluator_last_sample_timestamp_seconds",): 0,
        ("xai_quality_samples", *RISE): 0,
        ("xai_quality_samples", *GRADCAM): 0,
    }


def test_all_that_is_known():
    figures = QualityFigures(
        "working",
        last_sample=1.7e9,
        scores={RISE: ScoreFigures(0.25, 0.125, 0.75, 0.0625, 40, 1.6e9, -0.25, 0.5), GRADCAM: ScoreFigures()},
        class_scores={(*RISE, "cat"): (0.5, 7), (*RISE, "other"): (0.25, 33)},
        composites={"rise": 0.625, "gradcam": None, "control/blob": 0.5},
        beats_controls={"rise": True, "gradcam": False},
        outlier_share=0.375,
        confusion_counts={"cat": (1, 2, 3, 4), "dog": (0, 0, 0, 10), "other": (0, 0, 0, 0)},
    )
    assert shown(figures) == {
        **state_of("working"),
        ("xai_evaluator_last_sample_timestamp_seconds",): 1.7e9,
        ("xai_quality_score", *RISE): 0.25,
        ("xai_quality_score_standard_error", *RISE): 0.125,
        ("xai_quality_goodness", *RISE): 0.75,
        ("xai_quality_goodness_standard_error", *RISE): 0.0625,
        ("xai_quality_samples", *RISE): 40,
        ("xai_quality_samples", *GRADCAM): 0,
        ("xai_quality_last_success_timestamp_seconds", *RISE): 1.6e9,
        ("xai_quality_class_score", "cat", *RISE): 0.5,
        ("xai_quality_class_score", "other", *RISE): 0.25,
        ("xai_quality_class_samples", "cat", *RISE): 7,
        ("xai_quality_class_samples", "other", *RISE): 33,
        ("xai_quality_composite", "rise"): 0.625,
        ("xai_quality_composite", "control/blob"): 0.5,
        ("xai_quality_skill", *RISE): -0.25,
        ("xai_quality_skill_half_width", *RISE): 0.5,
        ("xai_quality_beats_controls", "rise"): 1,
        ("xai_quality_beats_controls", "gradcam"): 0,
        ("xai_ood_outlier_share",): 0.375,
        **{("xai_outcomes", "cat", name): value for name, value in (("tp", 1), ("fp", 2), ("fn", 3), ("tn", 4))},
        **{("xai_outcomes", "dog", name): value for name, value in (("tp", 0), ("fp", 0), ("fn", 0), ("tn", 10))},
    }


def test_a_figure_of_zero_is_known():
    figures = QualityFigures(
        "working",
        scores={RISE: ScoreFigures(0.0, 0.0, 0.0, 0.0, 2, 0.0)},
        class_scores={(*RISE, "cat"): (0.0, 2)},
        composites={"rise": 0.0},
        outlier_share=0.0,
    )
    zeros = {key[0] for key, value in shown(figures).items() if value == 0}
    assert zeros >= {
        "xai_quality_score",
        "xai_quality_score_standard_error",
        "xai_quality_goodness",
        "xai_quality_goodness_standard_error",
        "xai_quality_class_score",
        "xai_quality_composite",
        "xai_ood_outlier_share",
    }


def test_figures_are_read_whenever_they_are_shown():
    read = iter([QualityFigures("working"), QualityFigures("up_to_date")])
    registry = CollectorRegistry()
    registry.register(QualityCollector(lambda: next(read)))
    value = registry.get_sample_value
    assert value("xai_evaluator_state", {"state": "working"}) == 1
    assert value("xai_evaluator_state", {"state": "working"}) == 0
