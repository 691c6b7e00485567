"""What goes wrong while a package is built, in a form that crosses the border of a process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class BuildFailed(Exception):
    """No package was built; nothing that is half of one is left.

    ``code`` is for programs (``FILE_CHANGED``), ``member`` is the file, field or member that it is about, and
    ``message`` says what is wrong with it and what to do.
    """

    def __init__(self, code: str, member: str, message: str) -> None:
        super().__init__(f"{member}: {message}")
        self.code = code
        self.member = member
        self.message = message

    def to_json(self) -> dict[str, str]:
        """Return it as an object of JSON."""
        return {"code": self.code, "member": self.member, "message": self.message}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> BuildFailed:
        """Return what ``to_json`` wrote."""
        return cls(str(document["code"]), str(document["member"]), str(document["message"]))
