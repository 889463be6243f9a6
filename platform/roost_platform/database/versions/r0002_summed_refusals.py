"""How many calls a row of the ledger stands for: refusals are summed, everything else is one call.

A migration is history: it spells its changes out and imports nothing of Roost, so that later changes there leave it alone.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("usage_events", sa.Column("requests", sa.BigInteger(), nullable=False, server_default="1"))


def downgrade() -> None:
    op.drop_column("usage_events", "requests")
