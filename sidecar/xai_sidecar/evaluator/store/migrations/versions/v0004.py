"""Maps and scores carry what they were defined by: of other definitions they are not put together."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Adds the columns; what was kept before has none, and is comparable with nothing."""
    op.add_column("maps", sa.Column("definition", sa.Text))
    op.add_column("scores", sa.Column("definition", sa.Text))
