"""The scores of a run as tables: CSV, and Parquet where PyArrow is installed."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from xai_sidecar.runner.folder import RunFolder
from xai_sidecar.runner.results import ScoreRow


def write_scores(folder: RunFolder, rows: Sequence[ScoreRow]) -> list[Path]:
    """Writes scores.csv, and scores.parquet where PyArrow can be imported; returns what was written.

    Raises:
        ConfigError: The folder cannot be written.
    """
    names = [each.name for each in fields(ScoreRow)]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(["" if value is None else value for value in asdict(row).values()] for row in rows)
    written = [folder.write("scores.csv", buffer.getvalue())]
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:  # it is not there, or wants another NumPy
        return written
    table = pyarrow.table({name: [getattr(row, name) for row in rows] for name in names}, schema=_schema())
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    return [*written, folder.write("scores.parquet", sink.getvalue())]


def _schema() -> Any:
    import pyarrow

    text, whole, real = pyarrow.string(), pyarrow.int64(), pyarrow.float64()
    kinds = [text, whole, text, text, real, text, whole, real]
    return pyarrow.schema(list(zip((each.name for each in fields(ScoreRow)), kinds, strict=True)))
