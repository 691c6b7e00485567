"""What agents measure: batches, deduplication, queries, retention.

What lives here are points as agents sent them, and how far each journal of an agent
has been committed, so that a batch that comes twice counts once and a gap that says
nothing of itself is refused. ``rules`` decides, ``store`` keeps, ``operations`` is
what the Telemetry stream asks of the writer, ``service`` is the door for other rooms
and ``handler`` the one for administrators.

What may not live here: open streams and their budgets (``sessions``), what a value
means (whoever reads it), and agents themselves (``agents``, the one room that this
one calls). Values of the server about itself are ``observability``.
"""
