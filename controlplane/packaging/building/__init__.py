"""What stage BUILD stands on: from an artefact and its extracted files to a package that an agent installs.

The manifest is derived here (its shapes and its parser are ``fleetwright.manifest``, for the agent too),
the archive and the .deb are written, and the provenance of both is put into words. The same input gives the
same bytes on another day, in another folder, under another umask; only the version of zlib may change them,
which is why the evidence names it. ``work.build`` is the door: paths and JSON in, JSON out, so that it runs
in a process of its own. Nothing here starts a program, opens a connection or knows a key.
"""
