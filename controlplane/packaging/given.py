"""What whoever creates a pipeline gives for its package: fields of the manifest, and how to build it.

The text is one object of JSON with fields of a manifest (``fleetwright.manifest``) in the place of what the
factory derives, and beside them:

* ``deb``: options of a ``.deb`` that is wanted as well (``building.control.DebOptions``);
* ``source_date_epoch``: the time of all that is written into the package, seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fleetwright.manifest import SCHEMA, Fields, ManifestError, decode, parse_part

from controlplane.packaging.building.control import DebOptions
from controlplane.packaging.building.errors import BuildFailed
from controlplane.packaging.building.tarballs import MAX_EPOCH

MAX_BYTES: Final = 256 * 1024
"""Of the text, as the contract has it."""
DEFAULT_EPOCH: Final = 315_532_800
"""1980-01-01: the same for everybody, so that one input gives the same bytes whenever it is built, and the
earliest that every format of archives can hold."""

_OPTIONS: Final = ("deb", "source_date_epoch")


@dataclass(frozen=True, slots=True)
class Given:
    """What was given, checked; empty where nothing was."""

    manifest: Mapping[str, Any] = field(default_factory=dict)
    """Fields of a manifest."""
    deb: Mapping[str, Any] | None = None
    epoch: int = DEFAULT_EPOCH

    def text(self, name: str) -> str:
        """Return a field that is a text; empty where it was not given."""
        return str(self.manifest.get(name, ""))


def read_given(text: str) -> Given:
    """Read what was given; an empty text gives nothing. Raises ``ManifestError``, which names the field."""
    if not text:
        return Given()
    document = decode(text.encode(), MAX_BYTES)
    manifest = {name: value for name, value in document.items() if name not in _OPTIONS}
    _check_manifest(manifest)
    return Given(manifest, _deb(document), _epoch(document))


def _check_manifest(manifest: Mapping[str, Any]) -> None:
    fields = Fields(manifest)
    if "schema" in fields and fields.text("schema") != SCHEMA:
        raise ManifestError("schema", f"is not {SCHEMA!r}")
    for name in manifest:
        if name != "schema":
            parse_part(name, fields)


def _deb(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if "deb" not in document:
        return None
    options = document["deb"]
    if not isinstance(options, dict):
        raise ManifestError("deb", "is not an object with options of a .deb")
    try:
        DebOptions.from_json(options)
    except BuildFailed as error:
        raise ManifestError(f"deb.{error.member}", error.message) from None
    return options


def _epoch(document: Mapping[str, Any]) -> int:
    epoch = document.get("source_date_epoch", DEFAULT_EPOCH)
    if type(epoch) is not int or not 0 <= epoch <= MAX_EPOCH:
        raise ManifestError("source_date_epoch", f"is not a whole number of seconds from 0 to {MAX_EPOCH}")
    return epoch
