"""Indices by which the first samples of an order are found."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Adds them."""
    op.create_index("ix_samples_probability", "samples", ["model_version", "probability"])
    op.create_index("ix_samples_ood_percentile", "samples", ["model_version", "ood_percentile"])
    known = sa.text("value IS NOT NULL")
    columns = ["explainer", "metric", "value", "sample_id"]
    op.create_index("ix_scores_value", "scores", columns, sqlite_where=known, postgresql_where=known)
