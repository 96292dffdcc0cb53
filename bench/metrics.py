"""A server's metrics."""

from __future__ import annotations

import urllib.request

from prometheus_client.parser import text_string_to_metric_families


def read_metrics(address: str) -> dict[tuple[str, ...], float]:
    """What /metrics shows: a value for each name with the values of its labels, by the names of these, without `model`.

    Raises:
        OSError: There is no answer.
    """
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        families = text_string_to_metric_families(response.read().decode())
    samples = [sample for family in families for sample in family.samples]
    return {
        (one.name, *(value for name, value in sorted(one.labels.items()) if name != "model")): one.value
        for one in samples
    }
