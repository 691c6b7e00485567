"""The factory of packages as the harness breaks it: artefacts, their callers, its processes, and the count.

What the count goes by is seen from outside: the callers' own list, the folder of the store, the metadata as
an agent's client has it, and the processes of the machine. Nothing here looks into the database.
"""
