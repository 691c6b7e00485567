"""What is wrong with a filter or a token, and what its writer should do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from controlplane.errors import FieldViolation, InvalidArgument

QUOTE_LIMIT = 60
"""Characters of the caller's text that an error repeats: enough to find it, not a page of it."""


class FilterError(InvalidArgument):
    """A filter does not parse, or does not fit the fields that it names.

    ``position`` is the zero-based character at which it fails; it equals the
    length of the text where something is missing at the end. ``description``
    says what is wrong there and what to write instead.
    """

    def __init__(self, description: str, position: int, *, field: str = "filter") -> None:
        super().__init__(
            "FILTER_INVALID",
            f"{field}, character {position}: {description}",
            violations=[FieldViolation(field, f"character {position}: {description}")],
            metadata={"position": str(position)},
        )
        self.description = description
        self.position = position

    def of_field(self, field: str) -> FilterError:
        """Return the same error for a request whose filter stands in another field."""
        return FilterError(self.description, self.position, field=field)


class PageTokenError(InvalidArgument):
    """A page token or resume token was not made by this server for this request."""

    def __init__(self, description: str, *, field: str = "page_token") -> None:
        super().__init__(
            "PAGE_TOKEN_INVALID",
            f"{field}: {description}",
            violations=[FieldViolation(field, description)],
        )
        self.description = description


def quote(text: str) -> str:
    """Return a piece of the caller's text for an error: printable, and no longer than needed."""
    shown = text if len(text) <= QUOTE_LIMIT else text[: QUOTE_LIMIT - 1] + "…"
    return "'" + "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in shown) + "'"


def suggest(name: str, known: Iterable[str]) -> str:
    """Return "did you mean …" for the known names nearest to ``name``, or the list of all of them."""
    names = sorted(known)
    folded = {candidate.lower(): candidate for candidate in names}
    near = difflib.get_close_matches(name.lower(), folded, n=3)
    if near:
        return "did you mean " + " or ".join(folded[match] for match in near) + "?"
    return "use one of " + ", ".join(names)
