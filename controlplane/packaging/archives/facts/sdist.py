"""Source distributions of Python: PKG-INFO in the one folder (PEP 643)."""

from __future__ import annotations

import re

from controlplane.packaging.archives.errors import BadArtefact, Code, printable
from controlplane.packaging.archives.facts.fields import mail_fields
from controlplane.packaging.archives.facts.pypi import NAME, VERSION, same_name, same_version
from controlplane.packaging.archives.tree import Tree
from controlplane.packaging.records import ArtefactFacts, ArtefactType

ENDING = re.compile(r"\.(?:tar(?:\.\w+)?|tgz|tbz2?|txz|zip)$", re.IGNORECASE)


def sdist_facts(tree: Tree, declared_name: str) -> ArtefactFacts:
    """Name and version of an extracted sdist.

    Raises ``BAD_METADATA``, ``CONFLICTING_METADATA``, ``NOT_WHAT_IT_SAYS``, ``DUPLICATE_FIELD``.
    """
    folder = next(iter(tree.files)).partition("/")[0]
    member = f"{folder}/PKG-INFO"
    metadata = mail_fields(tree.text(member), member)
    name, version = metadata.matching("Name", NAME), metadata.matching("Version", VERSION)
    if not _is(folder, name, version):
        message = f"says {printable(name)} {printable(version)} inside, in a folder named otherwise"
        raise BadArtefact(Code.CONFLICTING_METADATA, folder, message)
    stem = ENDING.sub("", declared_name)
    if not _is(stem, name, version):
        message = f"is {printable(name)} {printable(version)} by its PKG-INFO; name it by that"
        raise BadArtefact(Code.NOT_WHAT_IT_SAYS, declared_name, message)
    details = metadata.details("Summary", "License", "License-Expression", "Requires-Python", "Requires-Dist")
    return ArtefactFacts(ArtefactType.SDIST, name, version, details=details)


def _is(stem: str, name: str, version: str) -> bool:
    """Whether ``stem`` is the name and the version, at whichever of its hyphens they part."""
    cuts = [index for index, sign in enumerate(stem) if sign == "-"]
    return any(same_name(stem[:cut], name) and same_version(stem[cut + 1 :], version) for cut in cuts)
