"""A store with as many samples as are wanted: those that a server has measured, over and over."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

_DETAILS = ("maps", "model_inputs", "curves")
"""Tables of which only the newest samples have rows, as their bounds would have it."""

_MOST_DETAILED = 300
_APART_SECONDS = 7.0
_TABLES = (
    "predictions",
    "top_classes",
    "class_outcomes",
    "explained",
    "scores",
    "thumbnails",
    "ground_truths",
    "ground_truth_classes",
    "ground_truth_objects",
    *_DETAILS,
)


def repeat_samples(path: Path, count: int) -> None:
    """Copies the samples of an SQLite store, whose server has ended, until there are so many, each newer than the last.

    The newest are as new as those that are copied, which become the oldest. Probabilities, OoD percentiles and scores
    are moved about, so that lists have something to order.
    """
    with closing(sqlite3.connect(path)) as connection, connection:
        (known, last) = connection.execute("SELECT count(*), max(id) FROM samples").fetchone()
        connection.execute("CREATE TEMP TABLE copies (n INTEGER PRIMARY KEY)")
        copies = -(-count // known)
        connection.executemany("INSERT INTO copies VALUES (?)", [(number,) for number in range(1, copies)])
        _copy(connection, "samples", f"copies WHERE t.id <= {last}", {
            "id": f"t.id + n * {last}",
            "request_id": "t.request_id || '-' || n",
            "time": f"t.time - ({copies - 1} - n) * {_APART_SECONDS * known}",
            "probability": "t.probability * (0.4 + 0.6 * (abs(random()) % 1000) / 1000)",
            "ood_percentile": "(abs(random()) % 10000) / 100.0",
        })  # fmt: skip
        connection.execute(
            f"UPDATE samples SET time = time - {(copies - 1) * _APART_SECONDS * known} WHERE id <= {last}"
        )
        for table in _TABLES:
            least = copies - _MOST_DETAILED // known if table in _DETAILS else 1
            moved = {"sample_id": f"t.sample_id + n * {last}"}
            if table == "scores":
                moved["value"] = "t.value * (0.8 + 0.2 * (abs(random()) % 1000) / 1000)"
            _copy(connection, table, f"copies WHERE t.sample_id <= {last} AND n >= {least}", moved)


def _copy(connection: sqlite3.Connection, table: str, where: str, changed: dict[str, str]) -> None:
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    values = ", ".join(changed.get(name, f't."{name}"') for name in columns)
    names = ", ".join(f'"{name}"' for name in columns)
    connection.execute(f"INSERT INTO {table} ({names}) SELECT {values} FROM {table} t, {where}")
