"""Why something is not trusted. Every text names what is wrong, where, and the remedy."""

from __future__ import annotations


class VerificationError(Exception):
    """What was given cannot be trusted, or cannot be looked at."""


class Malformed(VerificationError):
    """A document is not what it has to be: too large, not JSON, a field missing or of the wrong kind."""


class BadSignature(VerificationError):
    """Too few signatures of keys that may sign this."""


class UnknownKey(VerificationError):
    """None of the keys that signed may sign this."""


class TufError(VerificationError):
    """The repository's metadata, or a file that it describes, is refused."""


class Rollback(TufError):
    """The repository shows an older version than the one that was seen before."""


class Expired(TufError):
    """Metadata is past its time: the repository stands still, newer is held back, or the clock is wrong."""


class MixAndMatch(TufError):
    """Files that were never published together: one does not fit what another says of it."""


class EndlessData(TufError):
    """A file goes on beyond its length, or beyond the most that is read of its kind."""


class SlowData(TufError):
    """A file did not arrive in its time."""


class WrongTarget(TufError):
    """A file's length or digest is not the one that was released."""


class TooFewSignatures(TufError):
    """A role is not signed by as many of its keys as it needs."""


class UnknownRole(TufError):
    """A role is delegated to, and the snapshot does not know it."""


class UnknownTarget(TufError):
    """No role that may speak for this path has released it."""


class MalformedMetadata(TufError):
    """A metadata file is not readable as what it has to be."""


class ClockError(TufError):
    """This machine's clock shows an earlier time than it did at the last refresh."""


class StateError(TufError):
    """The client's own folder cannot be used."""


class FetchFailed(TufError):
    """The repository cannot be reached, or does not answer. Raised by fetchers."""


class NotFound(FetchFailed):
    """The repository has no such file. Raised by fetchers."""
