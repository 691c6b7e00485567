"""The patterns of the contract in words: what a person is told who broke one."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Any

_NAME = re.compile(r"\^(?P<collection>[a-zA-Z]+)/(?P<characters>\[[^]]+\])\{1,(?P<most>\d+)\}\$")
"""Of a resource name with an id of its own."""

_DIGEST = re.compile(r"\^(?P<collection>[a-zA-Z]+/)?\[0-9a-f\]\{64\}\$")
"""Of a SHA-256, or of a resource that is named by one; the contract has no further kind of name."""

_SHOWN = 80

FORMS = MappingProxyType(
    {
        "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$": "write a-z, 0-9 and -, at most 63, and no - at the ends",
        "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$": "write a-z, 0-9 and -, and no - at the ends",
        "^[a-z0-9]([a-z0-9._/-]*[a-z0-9])?$": "write a-z, 0-9 and . _ / -, with a-z or 0-9 at the ends",
        r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)*$": "write words of a-z, 0-9 and _ with dots between them",
        "^[A-Za-z_][A-Za-z0-9_]*$": "write letters, digits and _, with no digit first",
        "^[a-z][a-z0-9-]{0,31}$": "write a-z, 0-9 and -, at most 32, with a letter first",
        r"^[^/\\\x00-\x1f]+$": "write the name of a file without its folders",
        r"^([0-9]{1,18}\.)?[a-z][a-z0-9-]{0,31}\.json$": "write a name such as timestamp.json or 3.root.json",
        "^[A-Za-z0-9][A-Za-z0-9._+-]*$": "write letters, digits and . _ + -, with a letter or digit first",
    }
)
"""Patterns of the contract that are not of resource names, and what to write instead."""


def in_words(rule_id: str, rule: Any, value: Any) -> str | None:
    """Return what is wrong with a value and what to write; None where the contract's own words do.

    Of values only names are repeated: another may be a secret.
    """
    if rule_id == "string.min_len" and rule == 1:
        return "must not be empty"
    if rule_id != "string.pattern":
        return None
    if name := _NAME.fullmatch(str(rule)):
        given = str(value)[:_SHOWN]
        return (
            f"{given!r} is not of the form {name['collection']}/ID: write an ID of 1 to {name['most']} "
            f"characters of {name['characters']}"
        )
    if digest := _DIGEST.fullmatch(str(rule)):
        return f"write {digest['collection'] or ''}SHA256, with 64 lower-case hexadecimal digits"
    return FORMS.get(str(rule))
