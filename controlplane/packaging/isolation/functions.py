"""Which functions may be called in isolation: nothing that is not in the table, whoever asks.

A stage that reads untrusted bytes adds a row: the name that jobs use, and the function as
``package.module:function``. The function takes JSON by keyword, finds its files under ``in/``, writes to
``out/`` and returns JSON. An exception with ``code``, ``member`` and ``message`` reaches the caller as
``JobError``; any other as the code UNEXPECTED.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from controlplane.packaging.isolation.records import FailureKind, IsolationFailed

Functions = Mapping[str, str]

FUNCTIONS: Functions = MappingProxyType(
    {
        "unpack": "controlplane.packaging.archives.jobs:unpack",
        "build_packages": "controlplane.packaging.building.jobs:build_packages",
        "verify_deb": "controlplane.packaging.signing.jobs:verify",
        "catalogue": "controlplane.packaging.sbom.jobs:catalogue",
        "write_documents": "controlplane.packaging.sbom.jobs:write_documents",
    }
)
"""Name to ``package.module:function``."""

_TARGET = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def target_of(name: str, table: Functions) -> str:
    """Return the function behind a name; raises ``IsolationFailed`` (NOT_ALLOWED) where there is none."""
    target = table.get(name)
    if target is None:
        raise IsolationFailed(
            FailureKind.NOT_ALLOWED,
            f"function: {name!r} is not in the table of functions; add it to isolation/functions.py",
        )
    if not _TARGET.fullmatch(target):
        raise IsolationFailed(
            FailureKind.NOT_ALLOWED,
            f"function: {name!r} stands for {target!r}, not for package.module:function",
        )
    return target
