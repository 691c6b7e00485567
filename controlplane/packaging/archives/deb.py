"""The members of a deb, in the order that deb(5) wants, and nothing beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.packaging.archives.ar import ar_members
from controlplane.packaging.archives.errors import BadArtefact, Code, printable
from controlplane.packaging.archives.limits import Budget
from controlplane.packaging.archives.streams import Compression
from controlplane.packaging.archives.window import Window

FIRST = "debian-binary"
FORMAT = b"2.0\n"
CONTROL, DATA = "control.tar", "data.tar"


@dataclass(frozen=True, slots=True)
class Part:
    """A tar within a deb."""

    window: Window
    compression: Compression


@dataclass(frozen=True, slots=True)
class Deb:
    """The two tars of a deb, and the names of the members that dpkg overlooks, signatures for example."""

    control: Part
    data: Part
    extras: Sequence[str]


def opened_deb(window: Window, budget: Budget) -> Deb:
    """The parts of a deb.

    Raises ``NOT_WHAT_IT_SAYS`` for an ar that is none, ``MEMBER_MISSING``, ``UNEXPECTED_MEMBER``,
    ``UNSUPPORTED_FORMAT`` for another version of the format, and what ar's reader raises.
    """
    members = list(ar_members(window, budget))
    if not members or members[0][0] != FIRST:
        message = f"is an ar archive without {FIRST} first: no deb"
        raise BadArtefact(Code.NOT_WHAT_IT_SAYS, window.name, message)
    _check_version(members[0][1])
    # Members whose names begin with an underscore are to be overlooked (deb(5)).
    extras = [name for name, _ in members if name.startswith("_")]
    rest = [(name, part) for name, part in members[1:] if not name.startswith("_")]
    for (name, _), stem in zip(rest, (CONTROL, DATA), strict=False):
        _check_order(name, stem)
    if len(rest) < 2:
        missing = (CONTROL, DATA)[len(rest)]
        raise BadArtefact(Code.MEMBER_MISSING, missing, "is missing from the deb; upload it again, whole")
    if len(rest) > 2:
        message = f"stands behind {DATA}, where dpkg expects nothing; remove it"
        raise BadArtefact(Code.UNEXPECTED_MEMBER, rest[2][0], message)
    return Deb(_part(*rest[0], CONTROL), _part(*rest[1], DATA), extras)


def _check_version(window: Window) -> None:
    if window.head(len(FORMAT) + 1) != FORMAT:
        shown = printable(window.head(40).decode("latin-1"))
        message = f"is {shown!r}; only version 2.0 of the format is known"
        raise BadArtefact(Code.UNSUPPORTED_FORMAT, FIRST, message)


def _check_order(name: str, stem: str) -> None:
    if name != stem and not name.startswith(f"{stem}."):
        message = f"stands where {stem} must; the order is {FIRST}, {CONTROL}, {DATA}"
        raise BadArtefact(Code.UNEXPECTED_MEMBER, name, message)


def _part(name: str, window: Window, stem: str) -> Part:
    ending = name[len(stem) + 1 :]
    known = {one.value: one for one in Compression}
    if ending not in known:
        raise BadArtefact(Code.UNSUPPORTED_COMPRESSION, name, "is compressed in no way that dpkg knows")
    return Part(window, known[ending])
