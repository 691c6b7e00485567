"""What callers choose rows with: AIP-160 filters, and the tokens of pages and watches.

``parse`` reads the text into a tree, ``bind`` checks the tree against the fields
that a listing declares, ``read`` does both. Nothing here knows a database:
``storage.filters`` turns what was bound into SQL, and a room's store says which
column is which field. ``pages`` signs where a listing stopped.
"""

from controlplane.filtering.binding import bind, read
from controlplane.filtering.bound import BoundFilter
from controlplane.filtering.errors import FilterError, PageTokenError
from controlplane.filtering.grammar import parse
from controlplane.filtering.pages import PageToken, digest_of_request
from controlplane.filtering.schema import (
    BooleanField,
    DurationField,
    EnumField,
    FilterSchema,
    IntegerField,
    LabelsField,
    NamesField,
    RealField,
    TextField,
    TimestampField,
)

__all__ = [
    "BooleanField",
    "BoundFilter",
    "DurationField",
    "EnumField",
    "FilterError",
    "FilterSchema",
    "IntegerField",
    "LabelsField",
    "NamesField",
    "PageToken",
    "PageTokenError",
    "RealField",
    "TextField",
    "TimestampField",
    "bind",
    "digest_of_request",
    "parse",
    "read",
]
