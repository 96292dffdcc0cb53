"""Comparing two runs: scores made by hand, and differences worked out by SciPy."""

import csv
import json

import numpy as np
import pytest
import scipy.stats

from xai_sidecar.command import main as cli
from xai_sidecar.errors import ConfigError
from xai_sidecar.runner.comparing import compare

SRG, DELETION = "faithfulness/srg", "faithfulness/deletion_auc"


@pytest.fixture
def write(tmp_path):
    def write(name, scores):
        """A run with scores by explainer and metric, a list by picture; None for no score, a list for classes."""
        folder = tmp_path / name
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps({"format": "xai-sidecar run 1"}))
        with (folder / "scores.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["name", "target", "explainer", "metric", "value", "status"])
            for (explainer, metric), values in scores.items():
                for number, value in enumerate(values):
                    for target, each in enumerate(value if isinstance(value, list) else [value]):
                        written = "" if each is None else each
                        writer.writerow([f"{number}.jpg", 3 + target, explainer, metric, written, "ok"])
        return folder

    return write


def test_differences_are_those_of_the_same_pictures(write):
    generator = np.random.default_rng(0)
    base = generator.normal(0.3, 0.2, 40)  # pictures differ by far more than the runs do
    after = base + generator.normal(0.02, 0.01, 40)
    one = write("one", {("rise", SRG): base, ("rise", DELETION): base, ("gradcam", SRG): [0.1, 0.2]})
    two = write("two", {("rise", SRG): after, ("rise", DELETION): after, ("gradcam", SRG): [0.1, None, 0.3]})
    srg, deletion, same = compare(one, two)
    assert (srg.explainer, srg.metric, srg.count) == ("rise", SRG, 40)
    assert srg.after - srg.before == pytest.approx((after - base).mean())
    assert srg.p_value == pytest.approx(scipy.stats.ttest_rel(after, base).pvalue, rel=1e-6)
    assert srg.certain
    assert srg.better is True
    assert deletion.better is False  # the same numbers, where less is better
    assert (same.count, same.p_value, same.certain, same.better) == (1, 1.0, False, None)


def test_several_classes_of_a_picture_count_as_one_picture(write):
    generator = np.random.default_rng(4)
    base = generator.normal(0.3, 0.2, (12, 2))
    after = base + generator.normal(0.04, 0.05, (12, 1))  # what differs is the same for both classes of a picture
    one = write("one", {("rise", SRG): base.tolist(), ("gradcam", SRG): [[0.2, None], [0.4, 0.6]]})
    two = write("two", {("rise", SRG): after.tolist(), ("gradcam", SRG): [[0.3, 0.9], [0.5, 0.8]]})
    rise, gradcam = compare(one, two)
    assert rise.count == 12
    assert rise.p_value == pytest.approx(scipy.stats.ttest_rel(after.mean(axis=1), base.mean(axis=1)).pvalue, rel=1e-6)
    apart = scipy.stats.ttest_rel(after.ravel(), base.ravel()).pvalue
    assert rise.p_value > 2 * apart  # which would be sure of more than is known
    assert (gradcam.count, gradcam.before, gradcam.after) == (2, pytest.approx(0.35), pytest.approx(0.475))


def test_of_many_comparisons_none_is_told_by_chance(write):
    generator = np.random.default_rng(1)
    told = 0
    for trial in range(60):
        names = [(f"explainer{number}", SRG) for number in range(20)]
        one = write(f"one{trial}", {name: generator.normal(size=12) for name in names})
        two = write(f"two{trial}", {name: generator.normal(size=12) for name in names})
        told += any(each.certain for each in compare(one, two))
    # 5 % of the trials at the most: with 60, nine or more would come once in a thousand times.
    assert told < 9


def test_equal_differences_are_counted_as_signs(write):
    one = write("one", {("rise", SRG): [0.25, 0.5, 0.75, 0.0]})
    two = write("two", {("rise", SRG): [0.5, 0.75, 1.0, 0.25]})
    (found,) = compare(one, two)
    assert found.p_value == 2 * 0.5**4
    assert not found.certain


def test_the_exit_status_is_for_what_got_worse(write, capsys):
    generator = np.random.default_rng(2)
    base = generator.normal(0.3, 0.2, 30)
    noise = generator.normal(0, 0.01, 30)
    one = write("one", {("rise", SRG): base, ("control/blob", SRG): base})
    better = write("better", {("rise", SRG): base + 0.1 + noise, ("control/blob", SRG): base})
    worse = write("worse", {("rise", SRG): base - 0.1 + noise, ("control/blob", SRG): base})
    control = write("control", {("rise", SRG): base, ("control/blob", SRG): base - 0.1 + noise})
    assert cli.main(["compare", str(one), str(better)]) == 0
    assert "1 of 2 scores differ beyond chance" in capsys.readouterr().out
    assert cli.main(["compare", str(one), str(worse)]) == 1
    assert "worse" in capsys.readouterr().out
    assert cli.main(["compare", str(one), str(control)]) == 0
    assert cli.main(["compare", str(one), str(one)]) == 0
    assert "no score differs beyond chance" in capsys.readouterr().out


def test_what_is_no_run_is_said(write, tmp_path, capsys):
    one = write("one", {("rise", SRG): [0.1]})
    other = write("other", {("rise", DELETION): [0.1]})
    with pytest.raises(ConfigError, match="no folder of a run"):
        compare(one, tmp_path)
    with pytest.raises(ConfigError, match="no scores of the same"):
        compare(one, other)
    (one / "scores.csv").unlink()
    assert cli.main(["compare", str(one), str(other)]) == 2
    assert "Let the run come to its end" in capsys.readouterr().err
