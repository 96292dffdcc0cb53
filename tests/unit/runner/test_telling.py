"""What a run tells while it goes on."""

from types import SimpleNamespace

from xai_sidecar.ood.progress import Step
from xai_sidecar.runner.gathering import RunCounts
from xai_sidecar.runner.telling import Telling

SRG, DELETION = "faithfulness/srg", "faithfulness/deletion_auc"
MEANS = {
    SRG: {"gradcam": 0.4, "rise": 0.5, "gradient": 0.1, "occlusion": 0.3},
    DELETION: {"gradcam": 0.2, "rise": 0.1},
}
QUALITY = SimpleNamespace(
    by_explainer=lambda metric: {name: SimpleNamespace(mean=mean) for name, mean in MEANS.get(metric, {}).items()}
)


def told(weights, **counts):
    steps = []
    Telling(steps.append, weights)(RunCounts(**counts), QUALITY)
    return steps


def test_the_best_three_by_the_metric_that_weighs_most():
    (step,) = told({DELETION: 0.5, SRG: 1.0}, total=10, done=3)
    assert step == Step("running", 3, 10, "pictures", "srg: rise 0.50, gradcam 0.40, occlusion 0.30")


def test_where_less_is_better_the_least_comes_first():
    (step,) = told({DELETION: 1.0}, total=10, done=3)
    assert step.note == "deletion_auc: rise 0.10, gradcam 0.20"


def test_what_could_not_be_read_counts_as_done_and_is_told():
    (step,) = told({SRG: 1.0}, total=10, done=3, skipped=[("a.jpg", "It is no picture.")])
    assert (step.done, step.note.split(", ")[0]) == (4, "1 skipped")
    (step,) = told({"robustness": 1.0}, total=10, skipped=[("a.jpg", "It is no picture.")])
    assert step.note == "1 skipped"


def test_of_data_whose_length_is_not_known_no_end_is_told():
    (step,) = told({SRG: 1.0}, total=0, done=3)
    assert step.total is None


def test_scores_are_looked_at_now_and_then_and_pictures_told_each():
    steps, asked = [], []
    quality = SimpleNamespace(by_explainer=lambda metric: asked.append(metric) or QUALITY.by_explainer(metric))
    telling = Telling(steps.append, {SRG: 1.0})
    for done in range(1, 4):
        telling(RunCounts(total=3, done=done), quality)
    assert [step.done for step in steps] == [1, 2, 3]
    assert asked == [SRG]
    assert {step.note for step in steps} == {steps[0].note}
