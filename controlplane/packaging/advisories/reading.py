"""A process that reads a part of an export and writes the rows to store, one JSON object a line.

``python -m controlplane.packaging.advisories.reading PATH ECOSYSTEM PART PARTS``. Nobody vouches for what it
reads, so it has no database and no key, bounds its own memory, and whatever goes wrong is a line that says
so. The last line is ``{"done": N}``: without it, what came before is not whole.
"""

from __future__ import annotations

import base64
import hashlib
import json
import resource
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from controlplane.packaging.advisories import exports, osv, rows, rules

MAX_MEMORY = 3 * 1024 * 1024 * 1024
"""Bytes of address space: the directory of the largest export and the largest record fit many times."""

_LEVEL = 6
"""Of zlib; a record takes a third, and unpacking does not depend on it."""


def lines(export: exports.Export, part: int, parts: int) -> Iterator[dict[str, Any]]:
    """Yield a line for each record of a part, then the last one. Raises ``exports.ExportError``."""
    names = exports.members(export)[part::parts]
    yield {"members": len(names)}
    for name, content in exports.read(export, names):
        try:
            yield line(name, content, export.ecosystem)
        except osv.RecordError as error:
            raise exports.ExportError(f"{export.path}: {name}: {error}") from None
    yield {"done": len(names)}


def line(name: str, content: bytes, ecosystem: str) -> dict[str, Any]:
    """Return the rows of one record. Raises ``osv.RecordError``."""
    record = osv.parse(content)
    return {
        "member": name,
        "id": record.id,
        "modified": rules.instant(record.modified, record.published, record.withdrawn),
        "withdrawn": record.withdrawn,
        "aliases": [] if record.withdrawn is not None else list(record.aliases),
        "sha256": hashlib.sha256(content).hexdigest(),
        "brief": rows.encode_brief(record).decode(),
        "document": _base64(zlib.compress(content, _LEVEL)),
        "packages": [
            [row.ecosystem, row.name, _base64(rows.encode(row))] for row in rows.of_record(record, ecosystem)
        ],
    }


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def bound_memory() -> None:
    """Bound what this process may take, and leave no image of it behind."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    memory = MAX_MEMORY if most == resource.RLIM_INFINITY else min(most, MAX_MEMORY)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Read what the arguments say."""
    path, ecosystem, part, parts = sys.argv[1:]
    bound_memory()
    try:
        for one in lines(exports.Export(ecosystem, Path(path)), int(part), int(parts)):
            sys.stdout.write(json.dumps(one) + "\n")
    except exports.ExportError as error:
        sys.stdout.write(json.dumps({"error": str(error)}) + "\n")
    except MemoryError:
        sys.stdout.write(json.dumps({"error": f"{path}: takes more than {MAX_MEMORY} bytes to read"}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
