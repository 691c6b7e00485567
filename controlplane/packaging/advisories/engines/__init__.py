"""Other engines that are asked what the same advisories mean for the same components.

Here live the file format that Trivy reads its advisories from, what it is told of records and components, and
the reading of its answer. Running it is for ``judging/second_engine.py``; joining what it found with what
this room found for ``scanning``.
"""
