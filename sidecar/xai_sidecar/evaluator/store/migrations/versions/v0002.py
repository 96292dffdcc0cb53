"""Kept pictures come with their logits: probabilities saturate, and then say no more which class leads."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds the column; what was kept before has none."""
    op.add_column("pictures", sa.Column("logits", sa.LargeBinary))
