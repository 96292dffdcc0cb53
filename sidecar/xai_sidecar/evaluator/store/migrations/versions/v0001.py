"""The first version."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _child(name: str, *columns: sa.Column[object], parent: str = "samples", key: tuple[str, ...] = ()) -> None:
    """A table whose rows go when the row of the parent goes."""
    referred = "id" if parent == "samples" else "sample_id"
    op.create_table(
        name,
        sa.Column("sample_id", sa.BigInteger, nullable=False, autoincrement=False),
        *columns,
        sa.PrimaryKeyConstraint("sample_id", *key, name=f"pk_{name}"),
        sa.ForeignKeyConstraint(
            ["sample_id"], [f"{parent}.{referred}"], name=f"fk_{name}_{parent}", ondelete="CASCADE"
        ),
    )


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "samples",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False, autoincrement=True),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("image_index", sa.Integer, nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("target", sa.Integer, nullable=False),
        sa.Column("probability", sa.Double),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("picture_width", sa.Integer),
        sa.Column("picture_height", sa.Integer),
        sa.Column("region_left", sa.Double),
        sa.Column("region_top", sa.Double),
        sa.Column("region_right", sa.Double),
        sa.Column("region_bottom", sa.Double),
        sa.Column("ood_score", sa.Double),
        sa.Column("ood_percentile", sa.Double),
        sa.Column("byte_count", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_samples"),
        sa.UniqueConstraint("request_id", "image_index", name="uq_samples"),
    )
    op.create_index("ix_samples_time", "samples", ["time"])
    op.create_index("ix_samples_model_version_time", "samples", ["model_version", "time"])
    op.create_index("ix_samples_state_time", "samples", ["state", "time"])
    _child("predictions", sa.Column("class_id", sa.Integer, nullable=False, autoincrement=False), key=("class_id",))
    _child(
        "pictures",
        sa.Column("channels", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("image", sa.LargeBinary, nullable=False),
        sa.Column("class_count", sa.Integer, nullable=False),
        sa.Column("probabilities", sa.LargeBinary, nullable=False),
    )
    _child(
        "maps",
        sa.Column("explainer", sa.Text, nullable=False),
        sa.Column("target", sa.Integer, nullable=False),
        sa.Column("parameters", sa.Text, nullable=False),
        sa.Column("seed", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("saliency", sa.LargeBinary, nullable=False),
        sa.Column("pass_count", sa.BigInteger, nullable=False),
        key=("explainer",),
    )
    _child(
        "scores",
        sa.Column("explainer", sa.Text, nullable=False),
        sa.Column("metric", sa.Text, nullable=False),
        sa.Column("target", sa.Integer, nullable=False),
        sa.Column("value", sa.Double),
        sa.Column("status", sa.Text),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("pass_count", sa.BigInteger, nullable=False),
        key=("explainer", "metric"),
    )
    _child(
        "ground_truths",
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("applied", sa.Boolean, nullable=False),
    )
    op.create_index("ix_ground_truths_applied_time", "ground_truths", ["applied", "time"])
    _child(
        "ground_truth_classes",
        sa.Column("class_id", sa.Integer, nullable=False, autoincrement=False),
        parent="ground_truths",
        key=("class_id",),
    )
    _child(
        "ground_truth_objects",
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("class_id", sa.Integer),
        sa.Column("shape", sa.Text, nullable=False),
        sa.Column("points", sa.Text),
        sa.Column("mask", sa.LargeBinary),
        parent="ground_truths",
        key=("number",),
    )
