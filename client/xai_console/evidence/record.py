"""What is kept of a sample as plain data: numbers, texts and lists, for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

import numpy as np

from xai_client import ModelInfo, Sample


def record(sample: Sample, info: ModelInfo, server: str) -> dict[str, Any]:
    """What was predicted, explained, measured and reported, and by what; without pictures and maps.

    Args:
        sample: The sample.
        info: The model that the server has now; `summary.model_version` says which one predicted.
        server: Where it came from.
    """
    return {
        "summary": plain(sample.summary),
        "explanations": plain(sample.explanations),
        "model": {
            "name": info.name,
            "version": info.version,
            "activation": info.activation,
            "input": plain(info.input),
            "engine": info.engine,
            "device": info.device,
            "weights": info.weights,
        },
        "server": {"address": server, "version": sample.server_version},
        "made": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def plain(value: Any) -> Any:
    """Something as JSON has it: arrays and bytes are left out, for they are files of their own; NaN is null."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if is_dataclass(value) and not isinstance(value, type):
        return plain({field.name: getattr(value, field.name) for field in fields(value)})
    if isinstance(value, Mapping):
        kept = {str(key): each for key, each in value.items() if not isinstance(each, (bytes, np.ndarray))}
        return {key: plain(each) for key, each in kept.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each) for each in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.item() if isinstance(value, np.generic) else value
