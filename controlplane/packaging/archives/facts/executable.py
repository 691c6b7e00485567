"""What the headers of an executable say, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controlplane.packaging.archives.errors import BadArtefact, Code
from controlplane.packaging.archives.window import Window


@dataclass(frozen=True, slots=True)
class Executable:
    """The machine and the system that an executable is for, in the words of ``uname``."""

    architecture: str
    os_family: str
    details: Mapping[str, str] = field(default_factory=dict)


def check_within(window: Window, offset: int, size: int, what: str) -> None:
    """Raise ``TRUNCATED`` where a part that the headers promise reaches past the end of the file."""
    if offset + size > window.size:
        message = f"{what} should end at byte {offset + size} of {window.size}; upload it again, whole"
        raise BadArtefact(Code.TRUNCATED, window.name, message)


def malformed(window: Window, message: str) -> BadArtefact:
    """The error for headers that contradict themselves."""
    return BadArtefact(Code.MALFORMED, window.name, message)
