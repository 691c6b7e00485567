"""Several processes on one machine: planned from the settings, started, watched, restarted, drained.

The supervisor is thin: it talks to no database and to no agent, so that nothing that holds
up a part of it can hold up the others. A part is a program of its own, started anew (never
forked, which gRPC does not survive), that knows its place by its command line and hangs
on its supervisor by a socket: what the supervisor's end closes, drains.
"""
