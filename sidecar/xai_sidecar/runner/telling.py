"""Tells how a run gets on, and what came of it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from xai_client.command.tables import table
from xai_sidecar.evaluator.live_quality import LiveQuality
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.ood.progress import Progress, Step, duration_text
from xai_sidecar.runner.exports import write_scores
from xai_sidecar.runner.folder import SUMMARY
from xai_sidecar.runner.gathering import RunCounts
from xai_sidecar.runner.report import report
from xai_sidecar.runner.results import ranked, score_rows, summary
from xai_sidecar.runner.session import RunResult

_SHOWN_SKIPPED = 10
_SHOWN_CLASSES = 10
_BEST = 3
_NOTE_SECONDS = 2.0


class Telling:
    """Shows how far a run is, with the scores so far.

    Args:
        progress: Shows steps.
        weights: Of the metrics, by name: the one that weighs most leads.
    """

    def __init__(self, progress: Progress, weights: Mapping[str, float]) -> None:
        self._progress = progress
        self._lead = max(weights, key=lambda name: weights[name], default="")
        self._noted = -math.inf
        self._note = ""

    def __call__(self, counts: RunCounts, quality: LiveQuality) -> None:
        """Shows a step."""
        done = counts.done + len(counts.skipped)
        if time.monotonic() - self._noted > _NOTE_SECONDS:  # with many pictures it takes longer than one of them
            self._noted, self._note = time.monotonic(), self._scores(counts, quality)
        self._progress(Step("running", done, max(counts.total, done) if counts.total else None, "pictures", self._note))

    def _scores(self, counts: RunCounts, quality: LiveQuality) -> str:
        means = {name: found.mean for name, found in quality.by_explainer(self._lead).items()}
        sign = 1 if self._lead and installed_metrics()[self._lead].higher_is_better else -1
        best = sorted(means, key=lambda name: -sign * means[name])[:_BEST]
        skipped = f"{len(counts.skipped)} skipped, " if counts.skipped else ""
        scores = ", ".join(f"{name} {means[name]:.2f}" for name in best)
        return f"{skipped}{self._lead.rpartition('/')[2]}: {scores}" if scores else skipped.rstrip(", ")


def written(result: RunResult) -> str:
    """Writes the files of a run's results; returns what there is to say of them."""
    found = summary(result)
    folder = result.folder
    rows = list(score_rows(result.store))
    tables = write_scores(folder, rows)
    paths = [folder.write(SUMMARY, found), *tables]
    paths.append(folder.write("report.html", report(result, found, rows)))
    lines = [_counts_line(result), *_skipped_lines(result.counts), "", *_score_lines(found)]
    lines += [*_class_lines(found), *_ood_lines(found)]
    if found["notes"]:
        lines += ["", *found["notes"][:_SHOWN_SKIPPED]]
    lines += ["", "written:", *(f"  {path}" for path in paths)]
    if len(tables) == 1:
        lines.append("without scores.parquet, for want of PyArrow: pip install 'xai-sidecar[parquet]'")
    return "\n".join(lines)


def _counts_line(result: RunResult) -> str:
    counts = result.counts
    new = counts.done - counts.known
    known = f", {counts.known:,} of them before" if counts.known else ""
    each = f", {result.seconds / new:.2g} s each" if new else ""
    end = "interrupted; the same command goes on: " if counts.interrupted else ""
    return f"{end}{counts.done:,} pictures measured{known}, in {duration_text(result.seconds)}{each}"


def _skipped_lines(counts: RunCounts) -> list[str]:
    if not counts.skipped:
        return []
    more = len(counts.skipped) - _SHOWN_SKIPPED
    shown = [f"  {name}: {why}" for name, why in counts.skipped[:_SHOWN_SKIPPED]]
    return [
        f"{len(counts.skipped):,} pictures could not be read:",
        *shown,
        *([f"  and {more:,} more"] if more > 0 else []),
    ]


def _score_lines(found: Mapping[str, Any]) -> list[str]:
    """A row for each explainer and control, the best first, and a column for each metric."""
    metrics = list(dict.fromkeys(row["metric"] for row in found["scores"]))
    names, composites = ranked(found), found["composites"]
    cells = {(row["explainer"], row["metric"]): row for row in found["scores"]}
    arrows = {row["metric"]: "↑" if row["higher_is_better"] else "↓" for row in found["scores"]}
    header = ["explainer", "composite ↑", *(f"{metric.rpartition('/')[2]} {arrows[metric]}" for metric in metrics)]
    rows = [
        [name, _value(composites.get(name)), *(_cell(cells.get((name, metric))) for metric in metrics)]
        for name in names
    ]
    return [
        "mean (95 % interval) of so many maps; ↑ higher or ↓ lower is better",
        *table(header, rows, right=range(1, len(header))),
    ]


def _class_lines(found: Mapping[str, Any]) -> list[str]:
    """The classes, those first that were predicted wrongly the most often."""
    accuracy = found["accuracy"]
    if accuracy is None or not accuracy["classes"]:
        return []
    best = next((name for name in ranked(found) if found["beats_controls"].get(name) is not None), None)
    metric = next((row["metric"] for row in found["scores"]), "")
    means = {row["class_id"]: row for row in found["by_class"] if (row["explainer"], row["metric"]) == (best, metric)}
    score = [f"{metric.rpartition('/')[2]} of {best}"] if best else []
    header = ["class", "TP", "FP", "FN", "precision", "recall", *score]
    wrong = sorted(accuracy["classes"], key=lambda row: -row["false_positives"] - row["false_negatives"])
    rows = [
        [
            row["label"],
            *(f"{row[name]:,}" for name in ("true_positives", "false_positives", "false_negatives")),
            *(_value(row[name]) for name in ("precision", "recall")),
            *(_class_cell(means.get(row["class_id"])) for _ in score),
        ]
        for row in wrong[:_SHOWN_CLASSES]
    ]
    more = len(wrong) - len(rows)
    share = f"{accuracy['share']:.1%} of {accuracy['pictures']:,} pictures with known classes were predicted rightly"
    return [
        "",
        share,
        *table(header, rows, right=range(1, len(header))),
        *([f"and {more:,} classes more"] if more else []),
    ]


def _class_cell(row: Mapping[str, Any] | None) -> str:
    return "–" if row is None else f"{row['mean']:.3f} {row['count']:,}"


def _ood_lines(found: Mapping[str, Any]) -> list[str]:
    ood = found["ood"]
    if ood is None or ood["share"] is None:
        return []
    below = f"below percentile {ood['below_percentile']:g} of the training pictures"
    return ["", f"{ood['outliers']:,} of {ood['pictures']:,} pictures ({ood['share']:.1%}) are outliers, {below}"]


def _value(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "–"
    bounds = "" if row["low"] is None else f" ({row['low']:.3f} to {row['high']:.3f})"
    return f"{row['mean']:.3f}{bounds} {row['count']:,}"
