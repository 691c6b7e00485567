"""Drops the import of the validation rules from a contract's descriptors, for the stubs that Python gets.

Usage: python scripts/without_rules.py IN.binpb OUT.binpb

The rules stay where they are, as options of fields, in their encoded form. Only the file that declares
them is no longer a dependency: so the stubs neither import nor ship ``buf.validate``, and work beside any
version of it. docs/decisions/0012-no-validation-stub.md says why.
"""

from __future__ import annotations

import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

RULES = "buf/validate/validate.proto"


def without_rules(contract: FileDescriptorSet) -> FileDescriptorSet:
    """Return the files without the one of the rules, and without an import of it.

    Raises ``ValueError`` where a file imports it publicly or weakly: those go by position.
    """
    return FileDescriptorSet(file=[_without_import(file) for file in contract.file if file.name != RULES])


def _without_import(file: FileDescriptorProto) -> FileDescriptorProto:
    if file.public_dependency or file.weak_dependency:
        raise ValueError(f"{file.name}: public and weak imports are not expected in the contract")
    kept = [name for name in file.dependency if name != RULES]
    del file.dependency[:]
    file.dependency.extend(kept)
    return file


def main(source: str, target: str) -> None:
    """Read one set of descriptors and write the other."""
    contract = FileDescriptorSet.FromString(Path(source).read_bytes())
    Path(target).write_bytes(without_rules(contract).SerializeToString(deterministic=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
