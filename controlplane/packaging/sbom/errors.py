"""The one error of this part: what somebody else wrote cannot be used."""

from __future__ import annotations


class BadMetadata(Exception):
    """Something that was read breaks its format's rules or a limit.

    ``member`` is the path of the file below the root, or the place within a document; ``message`` says what
    is wrong and what to do. ``code`` is the stable word for programs.
    """

    code = "BAD_METADATA"

    def __init__(self, member: str, message: str) -> None:
        # The name of a member is somebody else's text, and errors are shown on terminals.
        place = "".join(character if character.isprintable() else "?" for character in member[:500])
        super().__init__(f"{place}: {message}")
        self.member = member
        self.message = message

    def __reduce__(self) -> tuple[type[BadMetadata], tuple[str, str]]:
        """Cross a process boundary with both parts."""
        return type(self), (self.member, self.message)


class NoComponents(BadMetadata):
    """Nothing was found in a package that says of itself that it is something."""

    code = "NO_COMPONENTS"
