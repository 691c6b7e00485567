"""``fleetwright doctor``: looks at a server's machine, and at a server from a client, and says what to do.

``findings`` is what a check says and how checks survive whatever they meet. ``folder``,
``certificates``, ``database`` and ``machine`` look at a data folder and its machine,
``server`` calls a server, and ``command`` decides what is looked at and prints it. Nothing is mended
here, and nothing changed.
"""
