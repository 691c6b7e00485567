"""The one error that says what is wrong with an artefact."""

from __future__ import annotations

from enum import StrEnum

SHOWN = 200
"""Characters of a foreign text that a message repeats: enough to find it, too few to flood a log."""


class Code(StrEnum):
    """Why an artefact is refused; stable words that callers, tests and people may rely upon."""

    # What the file is
    NOT_A_FILE = "NOT_A_FILE"
    EMPTY = "EMPTY"
    UNKNOWN_FORMAT = "UNKNOWN_FORMAT"
    UNSUPPORTED_FORMAT = "UNSUPPORTED_FORMAT"
    UNSUPPORTED_COMPRESSION = "UNSUPPORTED_COMPRESSION"
    UNSUPPORTED_MEMBER = "UNSUPPORTED_MEMBER"
    NOT_WHAT_IT_SAYS = "NOT_WHAT_IT_SAYS"
    POLYGLOT = "POLYGLOT"
    CHANGED_WHILE_READ = "CHANGED_WHILE_READ"
    # Bytes that are not as their format wants them
    TRUNCATED = "TRUNCATED"
    CORRUPT = "CORRUPT"
    MALFORMED = "MALFORMED"
    CHECKSUM_MISMATCH = "CHECKSUM_MISMATCH"
    DIGEST_MISMATCH = "DIGEST_MISMATCH"
    TRAILING_DATA = "TRAILING_DATA"
    PREPENDED_DATA = "PREPENDED_DATA"
    HIDDEN_DATA = "HIDDEN_DATA"
    OVERLAPPING_ENTRIES = "OVERLAPPING_ENTRIES"
    CONFLICTING_HEADERS = "CONFLICTING_HEADERS"
    AMBIGUOUS_DIRECTORY = "AMBIGUOUS_DIRECTORY"
    ENCRYPTED = "ENCRYPTED"
    SPARSE_FILE = "SPARSE_FILE"
    DEVICE_NODE = "DEVICE_NODE"
    # Names and links
    PATH_ESCAPES = "PATH_ESCAPES"
    NUL_IN_NAME = "NUL_IN_NAME"
    NAME_NOT_PORTABLE = "NAME_NOT_PORTABLE"
    NAME_TOO_LONG = "NAME_TOO_LONG"
    DUPLICATE_ENTRY = "DUPLICATE_ENTRY"
    LINK_ESCAPES = "LINK_ESCAPES"
    LINK_IN_PATH = "LINK_IN_PATH"
    LINK_NOT_ALLOWED = "LINK_NOT_ALLOWED"
    # Limits
    RATIO_EXCEEDED = "RATIO_EXCEEDED"
    TOTAL_TOO_LARGE = "TOTAL_TOO_LARGE"
    FILE_TOO_LARGE = "FILE_TOO_LARGE"
    TOO_MANY_MEMBERS = "TOO_MANY_MEMBERS"
    PATH_TOO_DEEP = "PATH_TOO_DEEP"
    MEMORY_EXCEEDED = "MEMORY_EXCEEDED"
    METADATA_TOO_LARGE = "METADATA_TOO_LARGE"
    # What it says of itself
    MEMBER_MISSING = "MEMBER_MISSING"
    MEMBER_NOT_LISTED = "MEMBER_NOT_LISTED"
    UNEXPECTED_MEMBER = "UNEXPECTED_MEMBER"
    BAD_ENCODING = "BAD_ENCODING"
    BAD_METADATA = "BAD_METADATA"
    DUPLICATE_FIELD = "DUPLICATE_FIELD"
    CONFLICTING_METADATA = "CONFLICTING_METADATA"


class BadArtefact(Exception):
    """An artefact is refused: ``code`` says why, ``member`` where, ``message`` what and the remedy."""

    def __init__(self, code: Code, member: str, message: str) -> None:
        super().__init__(code, member, message)
        self.code = Code(code)
        self.member = printable(member)
        self.message = message

    def __str__(self) -> str:
        where = f"{self.member}: " if self.member else ""
        return f"{self.code.value}: {where}{self.message}"

    def as_json(self) -> dict[str, str]:
        """The error as three texts, to cross from the isolated process to the server."""
        return {"code": self.code.value, "member": self.member, "message": self.message}


def printable(text: str, limit: int = SHOWN) -> str:
    r"""A foreign text for a message: bounded, with everything invisible written as an escape (``\x1b``)."""
    shown = text if len(text) <= limit else f"{text[:limit]}…"
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in shown)
