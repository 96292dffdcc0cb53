"""Writes docs/reference/ from the code: config keys, explainers, metrics, Prometheus series. --check: fails if stale.

python docs/generate.py [--check]
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from xai_sidecar.config import Config
from xai_sidecar.config.section import key_path, section_of
from xai_sidecar.explainers.base import ExplainerParameters
from xai_sidecar.explainers.discovery import built_in_explainers
from xai_sidecar.metrics.discovery import built_in_metrics
from xai_sidecar.telemetry import (
    DriftCollector,
    DriftFigures,
    EvaluatorTelemetry,
    QualityCollector,
    QualityFigures,
    Registry,
    Telemetry,
)

FOLDER = Path(__file__).parent / "reference"
NOTE = "<!-- Made by docs/generate.py from the code; `make docs` makes it anew. -->\n"


def config_page() -> str:
    """Every key of the config file, a table for each section."""
    head = (
        "# Config keys\n\n"
        "A key stands in the TOML file, in an environment variable, where `evaluator.sample_rate` is\n"
        "`XAI_EVALUATOR__SAMPLE_RATE`, or on the command line as `--set evaluator.sample_rate=0.1`; the later one of\n"
        "these counts. Values of variables and of `--set` are TOML, or else texts as they stand. Relative paths are\n"
        "relative to the file. `–` stands for not set.\n"
    )
    return "\n".join([head, *_sections(Config)])


def _sections(section: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[str]:
    rows, below = [], []
    for name, field in section.model_fields.items():
        inner = section_of(field)
        if inner is not None:
            below.append((inner, (*path, name)))
        else:
            rows.append(f"| `{name}` | {_default(field)} | {_text(field.description or '')} |")
    if rows:
        yield f"## `[{key_path(path)}]`\n\n| key | default | meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    for inner, name in below:
        yield from _sections(inner, name)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default if field.default_factory is None else None  # what a factory gives depends on the machine
    if value is None or value == "":
        return "–"
    return f"`{_toml(value.model_dump() if isinstance(value, BaseModel) else value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return (
            "{ " + ", ".join(f"{_toml(key)} = {_toml(each)}" for key, each in value.items()) + " }" if value else "{}"
        )
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, default=str, ensure_ascii=False)


def explainers_page() -> str:
    """Every explainer: a table of them, and the parameters of each."""
    common = list(ExplainerParameters.model_fields)
    rows, parts = [], []
    for name, explainer in built_in_explainers().items():
        parameters = explainer.parameters_type
        own = ", ".join(f"`{each}`" for each in parameters.model_fields if each not in common)
        rows.append(f"| [`{name}`](#{name}) | {_text(explainer.description)} | {own} |")
        parts.append(f"## `{name}`\n\n{explainer.description}\n\n{_parameters(parameters)}")
    head = (
        "# Explainers\n\n"
        "What a server offers of these, with which defaults, tells `xai-client info`. All take "
        f"{', '.join(f'`{name}`' for name in common)}, too.\n\n"
        "| explainer | what it shows | parameters |\n|---|---|---|\n"
    )
    return "\n".join([head + "\n".join(rows) + "\n", *parts])


def metrics_page() -> str:
    """Every metric of explanations with its parameters."""
    rows = [
        f"| `{name}` | {'higher' if metric.higher_is_better else 'lower'} | "
        f"{metric.value_range[0]:g} to {metric.value_range[1]:g} | {_text(metric.description)} |"
        for name, metric in built_in_metrics().items()
    ]
    parts = [
        "# Metrics\n\n| metric | better | range | what it measures |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    ]
    for name, metric in built_in_metrics().items():
        if metric.parameters_type.model_fields:
            parts.append(f"## `{name}`\n\n{_parameters(metric.parameters_type)}")
    return "\n".join(parts)


class _Listing(Registry):
    """A registry that remembers its collectors."""

    def __init__(self) -> None:
        super().__init__()
        self.collectors: list[Any] = []

    def register(self, collector: Any) -> None:
        self.collectors.append(collector)
        super().register(collector)


def series_page() -> str:
    """Every Prometheus series with its labels."""
    registry = _Listing()
    Telemetry(registry, [])
    EvaluatorTelemetry(registry, [], [], [])
    registry.register(QualityCollector(lambda: QualityFigures("off")))
    registry.register(DriftCollector(DriftFigures))
    rows = []
    for collector in registry.collectors:
        for family in getattr(collector, "describe", collector.collect)():
            name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
            labels = getattr(family, "_labelnames", None) or getattr(collector, "_labelnames", ())
            shown = ", ".join(f"`{label}`" for label in labels)
            rows.append(f"| `{name}` | {family.type} | {shown} | {_text(family.documentation)} |")
    head = (
        "# Prometheus series\n\n"
        "All have the label `model` besides, the config's `model.name`. Counters that alerts are about begin at 0;\n"
        "the others appear once they have a value. A histogram has the series `_bucket`, `_sum` and `_count`.\n"
        "`/metrics` shows series of the process and of Python, too, which are not listed here.\n\n"
        "| series | type | labels | meaning |\n|---|---|---|---|\n"
    )
    return head + "\n".join(sorted(rows)) + "\n"


def _parameters(parameters: type[BaseModel]) -> str:
    schema = parameters.model_json_schema()["properties"]
    rows = [
        f"| `{name}` | {_schema_default(each)} | {_range(each)} | {_text(each['description'])} |"
        for name, each in schema.items()
    ]
    return "| parameter | default | values | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def _schema_default(schema: Mapping[str, Any]) -> str:
    value = schema.get("default")
    return "–" if value in (None, "") else f"`{_toml(value)}`"


def _range(schema: Mapping[str, Any]) -> str:
    schema = next((each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"), schema)
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    low, high = (
        schema.get("minimum", schema.get("exclusiveMinimum")),
        schema.get("maximum", schema.get("exclusiveMaximum")),
    )
    kind = {"integer": "whole number", "number": "number", "string": "text"}.get(schema.get("type", ""), "")
    if low is None and high is None:
        return kind
    if high is None:
        return f"{kind} from {low:g}"
    return f"{low:g} to {high:,g}" if high < 1e6 else f"{low:g} to {high:,}"


def _text(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def pages() -> dict[str, str]:
    """The pages by file name."""
    made = {
        "config.md": config_page,
        "explainers.md": explainers_page,
        "metrics.md": metrics_page,
        "series.md": series_page,
    }
    return {name: f"{NOTE}\n{make()}" for name, make in made.items()}


def main() -> int:
    """Writes the pages, or says how they differ; exit status 1 where they do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 where a page is stale")
    check = parser.parse_args().check
    stale = False
    for name, text in pages().items():
        path = FOLDER / name
        before = path.read_text() if path.exists() else ""
        if text == before:
            continue
        stale = True
        if check:
            lines = difflib.unified_diff(
                before.splitlines(), text.splitlines(), f"docs/reference/{name}", "the code", lineterm=""
            )
            print("\n".join(lines))
        else:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(text)
            print(f"written: docs/reference/{name}")
    if check and stale:
        print("docs/reference is stale; run make docs.", file=sys.stderr)
    return int(check and stale)


if __name__ == "__main__":
    sys.exit(main())
