"""Where untrusted bytes are read: a subprocess that has little, can do little, and says what it was denied.

``running.run`` calls a function of the table in ``functions`` and ``external.run_program`` a foreign program,
each in a process of its own, with limits on time, memory, files and processes, without network, without the
environment, and, where the system allows it, as another user in a file system that holds the interpreter and
one scratch folder. Nothing is taken for granted: ``confinement.observing`` tries each of these inside the
process before the job begins, and what held is in the outcome as ``Fact``.

Three processes stand behind a call. ``child`` is the guard: it is ours, reads no untrusted byte, keeps the
time, and ends the others whatever they do. The keeper is process 1 of a process namespace, with which all
that the job started dies. The job is the only one that sees the bytes.

What may not live here: what is done with the bytes (that is the table's), keys, the database, the network.
This package imports the standard library alone, so that a job starts quickly and with little code.
"""
