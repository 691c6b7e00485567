"""JSON that others wrote, read with limits and without surprises."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.packaging.sbom.errors import BadMetadata
from controlplane.packaging.sbom.text import shown

MAX_DOCUMENT = 128 * 1024 * 1024
"""Bytes of a JSON document; an SBOM of a whole operating system has about 50 MB."""


def parse_object(member: str, data: bytes, limit: int = MAX_DOCUMENT) -> Mapping[str, Any]:
    """Return the object that ``data`` holds.

    Raises:
        BadMetadata: it is too long, no JSON, nested too deeply, or not an object.
    """
    if len(data) > limit:
        raise BadMetadata(member, f"it has {len(data)} bytes, more than {limit}; shorten it")
    try:
        found = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse)
    except UnicodeDecodeError:
        raise BadMetadata(member, "it is not UTF-8, which JSON must be; write it as UTF-8") from None
    except RecursionError:
        raise BadMetadata(member, "its values are nested too deeply; flatten it") from None
    except ValueError as error:
        raise BadMetadata(member, f"it is no JSON: {shown(error)}; correct it") from None
    if not isinstance(found, dict):
        raise BadMetadata(
            member, f"it holds a {type(found).__name__} where an object is expected; correct it"
        )
    return found


def objects(member: str, field: str, value: object, limit: int) -> Sequence[Mapping[str, Any]]:
    """Return a list of objects; an absent one is empty.

    Raises:
        BadMetadata: it is no list, has more than ``limit`` entries, or holds something else than objects.
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadMetadata(member, f"{field} must be a list, not {type(value).__name__}; correct it")
    if len(value) > limit:
        raise BadMetadata(member, f"{field} has {len(value)} entries, more than {limit}; split the document")
    for entry in value:
        if not isinstance(entry, dict):
            raise BadMetadata(member, f"{field} holds a {type(entry).__name__} where objects are expected")
    return value


def mapping(member: str, field: str, value: object) -> Mapping[str, Any]:
    """Return an object; an absent one is empty; raise ``BadMetadata`` for anything else."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadMetadata(member, f"{field} must be an object, not {type(value).__name__}; correct it")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")
