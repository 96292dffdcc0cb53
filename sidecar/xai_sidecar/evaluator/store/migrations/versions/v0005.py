"""Samples carry how likely they were to be sampled, and what they count for in means."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Adds the columns; what was sampled before, all alike, counts for one."""
    op.add_column("samples", sa.Column("inclusion", sa.Double))
    op.add_column("samples", sa.Column("weight", sa.Double, nullable=False, server_default=sa.text("1")))
