"""Called by Alembic, with the connection that :mod:`endcap.stores.schema` gives it."""

from alembic import context

from endcap.stores.database import declare_tables, metadata
from endcap.stores.schema import VERSION_TABLE

declare_tables()
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite changes a table by copying it
    include_object=lambda thing, name, kind, reflected, other: not (reflected and kind == "table" and other is None),
)
with context.begin_transaction():
    context.run_migrations()
