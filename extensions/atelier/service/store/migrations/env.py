"""Alembic's entry: the migration runs on the connection that `migrate` holds."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], render_as_batch=True)
context.run_migrations()
