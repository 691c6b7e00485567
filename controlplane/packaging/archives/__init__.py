"""The readers of foreign formats: what an artefact is, what it says of itself, and its files on disk.

Everything here takes bytes that others made for an attack until shown otherwise. Readers of zip, tar and ar
are our own, because Python 3.11.2 has no ``tarfile.data_filter`` and because two readers that understand
one file differently are the attack: what is ambiguous is refused. ``intake.inspect`` ties it together. Only
the standard library is imported, so that the isolated process that runs this starts fast and can be
Debian's own Python. No network, no SQL, no keys, no gRPC.

The one error for a bad artefact is ``errors.BadArtefact``; an ``OSError`` means that this machine failed (a
full disk, for example), which says nothing about the artefact.
"""
