"""What the tests of archives share: a place to inspect in, and the assertion of a refusal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from controlplane.packaging.archives.errors import BadArtefact
from controlplane.packaging.archives.intake import inspect
from controlplane.packaging.archives.outcome import Intake


def inspected(folder: Path, declared: str, data: bytes, **options: Any) -> Intake:
    """Inspect these bytes in a folder of the test's."""
    path, into = folder / "upload", folder / "into"
    path.write_bytes(data)
    into.mkdir(exist_ok=True)
    return inspect(path, declared, into, **options)


def refused(folder: Path, declared: str, data: bytes, **options: Any) -> BadArtefact:
    """The refusal of these bytes, after which nothing but the upload is left on disk."""
    with pytest.raises(BadArtefact) as caught:
        inspected(folder, declared, data, **options)
    assert tree(folder) == {"into": b"", "upload": data}
    assert caught.value.message
    return caught.value


def tree(folder: Path) -> Mapping[str, bytes]:
    """Everything below a folder: the bytes of files, nothing for folders, the targets of links."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = b"-> " + str(path.readlink()).encode()
        else:
            found[name] = path.read_bytes() if path.is_file() else b""
    return found
