"""Archives within an artefact: each is noted, and entered as deep as the limits allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

from controlplane.packaging.archives.errors import BadArtefact
from controlplane.packaging.archives.extract import extract
from controlplane.packaging.archives.folder import Folder
from controlplane.packaging.archives.formats import Shape, nested_shape
from controlplane.packaging.archives.limits import EXHAUSTED, Budget
from controlplane.packaging.archives.outcome import NestedArchive
from controlplane.packaging.archives.readers import READERS, open_entries
from controlplane.packaging.archives.tree import Tree
from controlplane.packaging.archives.window import Window
from controlplane.packaging.records import FileEntry


class Nest:
    """Looks for archives among extracted files, and extracts them into a folder of their own, if given.

    A broken archive among an artefact's files, as many test suites hold, is noted with what is wrong with
    it. One that exhausts the artefact's limits refuses the artefact.
    """

    def __init__(self, into: Folder | None, budget: Budget) -> None:
        self._into = into
        self._budget = budget
        self._numbers = count(1)

    def look(self, folder: Folder, files: Sequence[FileEntry], depth: int = 1) -> Iterator[NestedArchive]:
        """The archives among ``files`` of ``folder``, each followed by those within it."""
        tree = Tree(folder, files, self._budget.limits)
        for entry in files:
            if entry.link_target or not entry.size:
                continue
            with tree.window(entry.path) as window:
                found = self._one(window, entry, depth)
            if found is None:
                continue
            yield found
            if found.files and self._into is not None:
                yield from self.look(self._into, found.files, depth + 1)

    def _one(self, window: Window, entry: FileEntry, depth: int) -> NestedArchive | None:
        shape = nested_shape(window, self._budget)
        if shape is None:
            return None
        name = shape if isinstance(shape, str) else _named(shape)
        folder, reason, files = self._entered(window, shape, depth)
        return NestedArchive(entry.path, name, entry.size, entry.sha256, depth, folder, reason, files)

    def _entered(
        self, window: Window, shape: Shape | str, depth: int
    ) -> tuple[str, str, Sequence[FileEntry]]:
        """Where it was extracted, or why it was not, and its files."""
        if isinstance(shape, str) or shape.format not in READERS:
            return "", "this format is not entered", ()
        if self._into is None:
            return "", "nested archives were not to be entered", ()
        if depth > self._budget.limits.depth:
            return "", f"deeper than {self._budget.limits.depth} archives within each other", ()
        place = f"{next(self._numbers):06}"
        try:
            entries, rule = open_entries(window, shape, self._budget)
            return place, "", extract(entries, self._into, place, rule, self._budget)
        except BadArtefact as error:
            if error.code in EXHAUSTED:
                raise
            self._into.remove(place)
            return "", str(error), ()


def _named(shape: Shape) -> str:
    return f"{shape.format.value}.{shape.compression.value}".rstrip(".")
