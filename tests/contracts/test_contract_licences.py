"""Which licences the runtime's libraries have; docs/decisions/0009-library-licences.md says why."""

from __future__ import annotations

import re

import pytest

from scripts import doc_tables

PERMISSIVE = {
    *("MIT", "MIT-0", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "PSF-2.0"),
    # What older distributions write instead of an SPDX expression.
    *("MIT License", "3-Clause BSD License", "ISC License", "Apache License, Version 2.0"),
    "BSD License",  # cronsim: BSD-3-Clause in its licence file
}
# Copyleft of the library alone: imported as it is published, never changed (docs/decisions/0009).
IMPORTED_UNMODIFIED = {"psycopg": "LGPL-3.0-only", "psycopg-binary": "LGPL-3.0-only", "cvss": "LGPLv3+"}
# Locked for another system, and not installed on the ones that the tests run on.
ELSEWHERE = {"colorama"}


def forbidden(text: str) -> list[str]:
    """List the parts of a licence expression that are not known to be permissive."""
    return [
        part
        for part in re.split(r" AND | OR ", text.replace("(", "").replace(")", ""))
        if part not in PERMISSIVE
    ]


@pytest.mark.parametrize("name", doc_tables.locked())
def test_every_library_of_the_runtime_has_a_permissive_licence(name: str) -> None:
    declared = doc_tables.licence(name)
    if declared is None:
        assert name in ELSEWHERE, f"{name} is locked and not installed"
    elif name in IMPORTED_UNMODIFIED:
        assert declared == IMPORTED_UNMODIFIED[name]
    else:
        assert forbidden(declared) == [], f"{name}: write a decision record before it is taken"


@pytest.mark.parametrize("text", ["GPL-3.0-or-later", "MIT AND AGPL-3.0-only", "LGPL-2.1", "", "Proprietary"])
def test_a_licence_that_is_not_permissive_is_found(text: str) -> None:
    assert forbidden(text)


def test_the_lock_is_read() -> None:
    assert {"grpcio", "protobuf", "sqlalchemy"} <= set(doc_tables.locked())
