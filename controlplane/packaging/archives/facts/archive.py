"""Plain archives and executables say nothing of their name: it is read from the file's, or given."""

from __future__ import annotations

import re
from dataclasses import dataclass

from controlplane.packaging.archives.facts.architectures import FAMILIES, MACHINES
from controlplane.packaging.archives.kinds import ending_of
from controlplane.packaging.archives.tree import Tree
from controlplane.packaging.records import ArtefactFacts, ArtefactType

VERSION = re.compile(
    r"v?(?P<version>[0-9]{1,20}(?:\.[0-9]{1,20}){0,9}"
    r"(?:[-.~_]?(?:alpha|beta|a|b|rc|pre|dev|post|preview|snapshot)[-.]?[0-9]{0,20})?"
    r"(?:\+[A-Za-z0-9.]{1,60})?)(?=[-_]|\Z)",
    re.IGNORECASE,
)
PARTING = re.compile(r"[-_]")
SPELT_WITH_A_PART = re.compile(r"x86[-_]64", re.IGNORECASE)
LAST_WORD = re.compile(r"(?P<rest>.+)[-_](?P<word>[^-_]+)")
MACHINE_WORDS = {**MACHINES, "x8664": "x86_64"}


@dataclass(frozen=True, slots=True)
class Named:
    """What the name of a file says; empty where it does not."""

    name: str
    version: str = ""
    architecture: str = ""
    os_family: str = ""


def named(file_name: str) -> Named:
    """The parts of names such as "tool-1.2.3-linux-amd64.tar.gz"."""
    # The hyphen in this one name of a machine parts no words.
    stem = SPELT_WITH_A_PART.sub("x8664", file_name[: len(file_name) - len(ending_of(file_name))])
    begin, version = _version(stem)
    words = [word.lower() for word in PARTING.split(stem)]
    machine = next((word for word in words if word in MACHINE_WORDS and word not in FAMILIES), "")
    family = next((FAMILIES[word] for word in words if word in FAMILIES), "")
    name = _without_platform(stem[:begin]).rstrip("-_.")
    return Named(name or stem, version, "x86_64" if machine == "x8664" else machine, family)


def _version(stem: str) -> tuple[int, str]:
    """Where the version stands: the last word that is one, those with a dot before those without."""
    found = []
    for cut in PARTING.finditer(stem):
        match = VERSION.match(stem, cut.end())
        if match:
            found.append((cut.start(), match["version"]))
    dotted = [one for one in found if "." in one[1]]
    return next(reversed(dotted or found), (len(stem), ""))


def _without_platform(stem: str) -> str:
    while (match := LAST_WORD.fullmatch(stem)) and match["word"].lower() in {*MACHINE_WORDS, *FAMILIES}:
        stem = match["rest"]
    return stem


def archive_facts(tree: Tree, declared_name: str) -> ArtefactFacts:
    """What the file's name says of an archive that says nothing itself."""
    said = named(declared_name)
    return ArtefactFacts(ArtefactType.ARCHIVE, said.name, said.version, said.architecture, said.os_family)
