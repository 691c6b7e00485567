"""Who exists: registration, labels and notes, selectors, presence and health.

What lives here is what the server knows of an agent and how it came to know it.
``rules`` decides (presence, nonces, labels), ``store`` keeps, ``operations`` are
the changes that agents' streams ask of the writer, ``service`` is the door for
other rooms and ``handler`` the one for administrators. An agent's row outlives its
deletion as a tombstone, so that watchers see it go and its session epoch never
repeats.

What may not live here: certificates and tokens (``identity``), open streams
(``sessions``), work (``tasks``) and measured values (``telemetry``). This room
calls no other; what a deletion must do elsewhere are hooks that ``bootstrap`` wires.
"""
