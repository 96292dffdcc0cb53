"""What lists and viewers need: outcomes, statuses and small copies of maps, curves, thumbnails, indices."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_UNKNOWN = 1
_STATUS_BITS = {"ok": 1, "all_zero": 2, "unreliable": 4, "zero_gradient": 8, "not_finite": 16, "no_ood_range": 32}

# 1: unknown, 2: true positive, 4: false positive, 8: false negative.
_OUTCOMES = """
INSERT INTO class_outcomes (sample_id, class_id, outcome)
SELECT predictions.sample_id, predictions.class_id, CASE
  WHEN NOT EXISTS (SELECT 1 FROM ground_truth_classes applying WHERE applying.sample_id = predictions.sample_id)
    THEN 1
  WHEN EXISTS (
    SELECT 1 FROM ground_truth_classes applying
    WHERE applying.sample_id = predictions.sample_id AND applying.class_id = predictions.class_id
  ) THEN 2
  ELSE 4 END
FROM predictions
UNION ALL
SELECT applying.sample_id, applying.class_id, 8
FROM ground_truth_classes applying
WHERE NOT EXISTS (
  SELECT 1 FROM predictions
  WHERE predictions.sample_id = applying.sample_id AND predictions.class_id = applying.class_id
)
"""

_OF_SAMPLE = """
UPDATE samples SET {column} = coalesce(
  (SELECT sum(bit) FROM (SELECT DISTINCT {bit} AS bit FROM {table} WHERE sample_id = samples.id{where}) bits), {default}
)
"""

_EXPLAINED = """
INSERT INTO explained (sample_id, explainer, target, status, pass_count)
SELECT sample_id, explainer, target, status, pass_count FROM maps
"""


def _child(name: str, *columns: sa.Column[Any], key: tuple[str, ...] = ()) -> None:
    op.create_table(
        name,
        sa.Column("sample_id", sa.BigInteger, nullable=False, autoincrement=False),
        *columns,
        sa.PrimaryKeyConstraint("sample_id", *key, name=f"pk_{name}"),
        sa.ForeignKeyConstraint(["sample_id"], ["samples.id"], name=f"fk_{name}_samples", ondelete="CASCADE"),
    )


def upgrade() -> None:
    """Adds what is listed by; of maps that were kept before there are no small copies, curves or thumbnails."""
    for name in ("outcomes", "map_statuses"):
        op.add_column("samples", sa.Column(name, sa.Integer, nullable=False, server_default=sa.text("0")))
    _child(
        "explained",
        sa.Column("explainer", sa.Text, nullable=False),
        sa.Column("target", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("pass_count", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.Double) for name in ("concentration", "centre_x", "centre_y", "border")),
        *(sa.Column(f"small_{name}", sa.Integer) for name in ("height", "width")),
        *(sa.Column(f"small_{name}", sa.Double) for name in ("minimum", "maximum")),
        sa.Column("small", sa.LargeBinary),
        key=("explainer",),
    )
    _child(
        "curves",
        *(sa.Column(name, sa.Text, nullable=False) for name in ("explainer", "kind", "metric", "fill")),
        sa.Column("tie_seed", sa.Text, nullable=False),
        *(sa.Column(name, sa.LargeBinary, nullable=False) for name in ("pixel_counts", "probabilities")),
        key=("explainer", "kind"),
    )
    for table, column in (("thumbnails", "jpeg"), ("model_inputs", "png"), ("top_classes", "classes")):
        _child(table, sa.Column(column, sa.LargeBinary, nullable=False))
    _child(
        "class_outcomes",
        sa.Column("class_id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("outcome", sa.Integer, nullable=False),
        key=("class_id",),
    )
    _fill()
    _index()


def _fill() -> None:
    op.execute(_OUTCOMES)
    op.execute(_OF_SAMPLE.format(column="outcomes", bit="outcome", table="class_outcomes", where="", default=_UNKNOWN))
    op.execute(_EXPLAINED)
    cases = " ".join(f"WHEN '{status}' THEN {bit}" for status, bit in _STATUS_BITS.items())
    op.execute(
        _OF_SAMPLE.format(
            column="map_statuses",
            bit=f"CASE status {cases} ELSE 0 END",
            table="explained",
            where=" AND explainer NOT LIKE 'control/%'",
            default=0,
        )
    )


def _index() -> None:
    op.drop_index("ix_samples_model_version_time", "samples")
    listed = ["probability", "ood_percentile", "state", "target", "outcomes", "map_statuses"]
    op.create_index("ix_samples_listing", "samples", ["model_version", "time", *listed])
    op.create_index("ix_scores_explainer_metric", "scores", ["explainer", "metric", "sample_id", "value"])
    op.create_index("ix_explained_explainer", "explained", ["explainer", "status", "sample_id"])
    op.create_index("ix_class_outcomes_class_id", "class_outcomes", ["class_id", "outcome", "sample_id"])
