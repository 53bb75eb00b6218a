"""Numbers of deleted rows are never given out again.

Whoever follows a log remembers the last number that he read. SQLite would give the newest row's number to the next one
once that row is erased, and the follower would miss it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

TABLES = ("events", "rankings", "rejects")


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":  # PostgreSQL's sequences do so anyway
        return
    for table in TABLES:
        made = sa.text("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = :name").bindparams(name=table)
        if "AUTOINCREMENT" in str(op.get_bind().execute(made).scalar()).upper():
            continue
        with op.batch_alter_table(table, recreate="always", table_kwargs={"sqlite_autoincrement": True}):
            pass


def downgrade() -> None:
    pass
