"""Alembic's entry: runs migrations on the connection that ``storage.migrate`` opened."""

from alembic import context

from controlplane.storage.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter most things in place; batch mode copies the table.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
