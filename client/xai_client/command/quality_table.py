"""How good explanations have been measured to be, as tables."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from xai_client.command.tables import table
from xai_client.evaluator_info import ClassConfusion, ControlInfo, EvaluatorInfo, QualityMeasure
from xai_client.model_info import ExplainerInfo, ModelInfo

_WIDTH: Final = 100
_UNKNOWN: Final = "–"
_MOST_CLASSES: Final = 10
_READING: Final = "mean ± half its 95 % interval (samples); ↑ higher or ↓ lower is better; 'auto' goes by composite"
_SKILL: Final = (
    "then the skill: 0 % is no better than the best control (a map that knows nothing), 100 % all that can be"
)
_ARROWS: Final = {True: "↑", False: "↓"}


def evaluator_rows(info: ModelInfo) -> list[tuple[str, str]]:
    """What measures the quality, and whether it has anything to measure: rows for `pairs`."""
    evaluator = info.evaluator
    if evaluator is None:
        return [("quality", "not measured: this server samples no requests")]
    last = evaluator.last_sample_time
    lines = [
        f"{evaluator.sample_rate * 100:.4g} % of the requests are sampled; {_state(evaluator)}",
        f"last sample {_time(last)}" if last else "no request has been sampled yet",
        *textwrap.wrap(evaluator.note, _WIDTH - 10),
        *([] if any(each.quality for each in info.explainers.values()) else ["nothing has been measured yet"]),
    ]
    return [("" if number else "quality", line) for number, line in enumerate(lines)]


def accuracy_lines(info: ModelInfo, width: int | None = None) -> list[str]:
    """Accuracy of the predictions, and the confusion counts of the most frequent classes.

    Empty where no ground truth has been reported.
    """
    accuracy = info.evaluator.accuracy if info.evaluator else None
    if accuracy is None:
        return []
    count, shown = accuracy.picture_count, accuracy.classes[:_MOST_CLASSES]
    header = ("label", "class", "right", "wrongly predicted", "missed", "precision", "recall")
    rows = [_class_row(each) for each in shown]
    left = len(accuracy.classes) - len(shown)
    return [
        f"accuracy  {accuracy.share:.1%} of {count} picture{'s' * (count != 1)} with ground truth",
        "",
        *table(header, rows, right=range(1, len(header)), width=width),
        *([f"and {left} more; --json has them"] if left else []),
    ]


def _class_row(entry: ClassConfusion) -> Sequence[str]:
    counts = (entry.class_id, entry.true_positives, entry.false_positives, entry.false_negatives)
    return entry.label, *map(str, counts), _number(entry.precision), _number(entry.recall)


def _state(evaluator: EvaluatorInfo) -> str:
    count, window = evaluator.window_sample_count, _span(evaluator.window)
    pictures = f"{count} picture{'s' * (count != 1)} in the last {window}"
    return {
        "no_traffic": f"no recent traffic; {pictures}",
        "up_to_date": f"up to date with {pictures}",
        "working": f"measuring new ones; {pictures}",
    }.get(evaluator.state, pictures)


def _span(seconds: float) -> str:
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds / unit:g} {name}"
    return f"{seconds:g} s"


def _time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def quality_lines(info: ModelInfo, width: int | None = None) -> list[str]:
    """A row for each explainer, the best first, and a column for each metric, in as many tables as the width takes.

    Empty where nothing has been measured.
    """
    higher = _metrics(info)
    explainers: list[ExplainerInfo | ControlInfo]
    explainers = [each for each in info.explainers.values() if each.available or each.quality]
    controls = info.evaluator.controls if info.evaluator else {}
    explainers += [each for each in controls.values() if each.quality]
    if not any(each.quality for each in explainers):
        return []
    explainers.sort(key=lambda each: math.inf if each.composite_score is None else -each.composite_score)
    short = _short_names(higher)
    columns = [["composite ↑", *(_number(each.composite_score) for each in explainers)]]
    for metric, better in higher.items():
        measures = (_measure(each, metric) for each in explainers)
        columns.append([f"{short[metric]} {_ARROWS[better]}", *map(_cell, measures)])
    names = ["explainer", *(each.name for each in explainers)]
    room = min(_WIDTH, width or _WIDTH)
    compared = any(measure.skill for each in explainers for measure in each.quality)
    lines = textwrap.wrap(f"{_READING}; {_SKILL}" if compared else _READING, room)
    for block in _blocks(columns, room - _width(names)):
        header, *rows = zip(names, *block, strict=True)
        lines += ["", *table(header, rows, right=range(1, len(header)), width=width)]
    return [*lines, *_objections(info, room), *_legend(info, short, room)]


def _objections(info: ModelInfo, room: int) -> list[str]:
    """Why 'auto' leaves explainers out."""
    lines = [
        line
        for each in info.explainers.values()
        if each.standing and not each.standing.eligible
        for line in textwrap.wrap(f"'auto' leaves out {each.name}: it {each.standing.objection}", room)
    ]
    return ["", *lines] if lines else []


def drift_lines(info: ModelInfo, width: int | None = None) -> list[str]:
    """The maps that are not what they were, a line for each explainer and source; empty where there are none."""
    lines = []
    for explainer in info.explainers.values():
        moved: dict[tuple[str, str], list[str]] = {}
        for each in explainer.drift:
            if each.drifted:
                what = f"{each.statistic} {each.reference_mean:.2f} → {each.current_mean:.2f}"
                moved.setdefault((each.source, each.class_label), []).append(what)
        for (source, label), found in moved.items():
            of = f"{source}{f' of {label}' if label else ''}"
            text = f"maps by {explainer.name} have drifted ({of}): {', '.join(found)}"
            lines += textwrap.wrap(text, min(_WIDTH, width or _WIDTH))
    return lines


def _metrics(info: ModelInfo) -> dict[str, bool]:
    """Whether higher is better, by metric, in the order to list them in."""
    listed = info.evaluator.metrics.values() if info.evaluator else ()
    higher = {each.name: each.higher_is_better for each in listed}
    for explainer in info.explainers.values():
        for measure in explainer.quality:
            higher.setdefault(measure.metric, measure.higher_is_better)
    return higher


def _short_names(metrics: Iterable[str]) -> dict[str, str]:
    """What a metric is called in the table: what follows the last slash, where that tells it from the others."""
    short = {metric: metric.rpartition("/")[2] for metric in metrics}
    taken = list(short.values())
    return {metric: metric if taken.count(name) > 1 else name for metric, name in short.items()}


def _measure(explainer: ExplainerInfo | ControlInfo, metric: str) -> QualityMeasure | None:
    return next((each for each in explainer.quality if each.metric == metric), None)


def _cell(measure: QualityMeasure | None) -> str:
    if measure is None or not measure.sample_count:
        return _UNKNOWN
    half = measure.confidence_half_width
    spread = f" ±{half:.3f}" if math.isfinite(half) else ""
    if measure.interval is not None and not _even(measure.mean, half, measure.interval):
        spread = " {:.3f}…{:.3f}".format(*measure.interval)
    skill = f" {measure.skill.value:+4.0%}" if measure.skill else ""
    return f"{measure.mean:.3f}{spread} ({measure.sample_count}){skill}"


def _even(mean: float, half: float, interval: tuple[float, float]) -> bool:
    """Whether an interval reaches as far to both sides of the mean."""
    return all(abs(abs(end - mean) - half) < 5e-4 for end in interval)


def _number(value: float | None) -> str:
    return _UNKNOWN if value is None or not math.isfinite(value) else f"{value:.3f}"


def _width(cells: Iterable[str]) -> int:
    return max(map(len, cells))


def _blocks(columns: Sequence[list[str]], room: int) -> list[list[list[str]]]:
    """The columns, in groups that fit beside each other; each takes two spaces before it."""
    blocks: list[list[list[str]]] = []
    left = 0
    for column in columns:
        need = _width(column) + 2
        if not blocks or need > left:
            blocks.append([])
            left = room
        blocks[-1].append(column)
        left -= need
    return blocks


def _legend(info: ModelInfo, short: Mapping[str, str], room: int) -> list[str]:
    """What each metric is, with its range."""
    metrics = info.evaluator.metrics.values() if info.evaluator else ()
    width = _width([*short.values(), ""])
    lines = [""] if metrics else []
    for each in metrics:
        head = f"{short[each.name]:<{width}} {_ARROWS[each.higher_is_better]}  "
        meaning = f"{each.name}, {each.minimum:g} to {each.maximum:g}: {each.description}"
        lines += textwrap.wrap(meaning, room, initial_indent=head, subsequent_indent=" " * len(head))
    return lines
