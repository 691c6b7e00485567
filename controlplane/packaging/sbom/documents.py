"""From a document back to components: our own, another tool's, or one that somebody gave with an artefact.

Reads CycloneDX 1.2 to 1.6 and SPDX 2.2 and 2.3, all as JSON. A component without a package URL is kept under
a generic one, with a note: a scan then says that it is not covered, instead of passing over it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controlplane.packaging.records import Component
from controlplane.packaging.sbom.errors import BadMetadata
from controlplane.packaging.sbom.jsontext import MAX_DOCUMENT, parse_object
from controlplane.packaging.sbom.merging import merged
from controlplane.packaging.sbom.read_cyclonedx import cyclonedx_components
from controlplane.packaging.sbom.read_spdx import spdx_components
from controlplane.packaging.sbom.text import shown

_CYCLONEDX = frozenset({"1.2", "1.3", "1.4", "1.5", "1.6"})
_SPDX = frozenset({"SPDX-2.2", "SPDX-2.3"})


def components_of(data: bytes, member: str = "SBOM", limit: int = MAX_DOCUMENT) -> list[Component]:
    """Return the components that a document lists, merged and sorted by package URL.

    ``member`` names the document in errors; ``limit`` is in bytes.

    Raises:
        BadMetadata: it is no CycloneDX or SPDX document of a version that is read, breaks the rules of its
            format, or passes a limit.
    """
    document = parse_object(member, data, limit)
    if "bomFormat" in document:
        _supported(member, "specVersion", document.get("specVersion"), _CYCLONEDX)
        return merged(cyclonedx_components(member, document))
    if "spdxVersion" in document:
        _supported(member, "spdxVersion", document.get("spdxVersion"), _SPDX)
        return merged(spdx_components(member, document))
    raise BadMetadata(member, _neither(document))


def _supported(member: str, field: str, value: object, versions: frozenset[str]) -> None:
    if not isinstance(value, str) or value not in versions:
        known = ", ".join(sorted(versions))
        raise BadMetadata(
            member, f"{field} {shown(value)!r} is not one that is read ({known}); convert the document"
        )


def _neither(document: Mapping[str, Any]) -> str:
    keys = shown(", ".join(sorted(map(str, document))[:10]))
    return f"it is neither CycloneDX nor SPDX 2 (its fields are: {keys}); give one of them as JSON"
