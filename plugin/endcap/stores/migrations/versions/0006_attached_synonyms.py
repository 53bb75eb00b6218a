"""What was copied of a shop's own index, and synonyms."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "attached",
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("unit", sa.String(), nullable=False),
        sa.Column("sequence", number, nullable=False),
        sa.PrimaryKeyConstraint("source", "id"),
    )
    op.create_index("attached_by_sequence", "attached", ["source", "unit", "sequence"])
    op.create_table(
        "attached_units",
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("unit", sa.String(), nullable=False),
        sa.Column("sequence", number, nullable=False),
        sa.Column("reading", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("source", "unit"),
    )
    op.create_table(
        "synonyms",
        sa.Column("id", number, autoincrement=True, nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    op.drop_table("synonyms")
    op.drop_table("attached_units")
    op.drop_index("attached_by_sequence", table_name="attached")
    op.drop_table("attached")
