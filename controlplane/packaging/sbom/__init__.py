"""What a package consists of: cataloguers find components, and documents are written from what they found.

Here live package URLs (``purls.py``), one cataloguer a format (``cataloguers/``), the joining of what other
tools found (``external.py``, ``merging.py``), the two documents (``cyclonedx.py``, ``spdx.py``), how much of
a package they explain (``coverage.py``) and the way back from a document to components (``documents.py``).
All of it reads bytes that others made and is run in a limited subprocess: nothing here opens the network, a
database or a key, and the only error that leaves it is ``BadMetadata``.
"""
