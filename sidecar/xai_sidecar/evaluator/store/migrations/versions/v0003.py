"""A secret for the choice of samples, without which callers could have all of their own requests sampled."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_SALT_BYTES = 16


def upgrade() -> None:
    """Makes the table, and the secret."""
    table = op.create_table(
        "store_secrets",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_store_secrets"),
    )
    op.bulk_insert(table, [{"name": "sampling", "value": secrets.token_bytes(_SALT_BYTES)}])
