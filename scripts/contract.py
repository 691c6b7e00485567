"""Keeps the contract to what released versions promised; docs/compatibility.md says what that is.

Usage: python scripts/contract.py check [FOLDER]   compares the contract of FOLDER (default: this repository)
                                                   with every released one; status 1 where it breaks one
       python scripts/contract.py release          writes the contract as proto/released/v<version>.binpb.gz

Beside what `buf breaking` finds, a validation rule may not become narrower, and a reason of an error may not
change its status code.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorSet
from google.protobuf.json_format import MessageToDict

ROOT = Path(__file__).parents[1]
RELEASED = ROOT / "proto" / "released"
PACKAGE = "fleetwright.v1"

# Rules that bound a value from above may grow, those that bound it from below may shrink.
_UPPER = {"max_len", "max_bytes", "max_items", "max_pairs", "lte", "lt"}
_LOWER = {"min_len", "min_bytes", "min_items", "min_pairs", "gte", "gt"}
_ENUM, _VALUE = 5, 2  # field numbers of FileDescriptorProto.enum_type and EnumDescriptorProto.value


def buf(*arguments: str | Path, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run buf in ``folder``, without a home folder of the user."""
    environment = {"BUF_CACHE_DIR": str(ROOT / ".cache" / "buf"), **os.environ}
    program = Path(sys.executable).with_name("buf")
    return subprocess.run(
        [program, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def image(path: Path) -> FileDescriptorSet:
    """Read the contract of a folder, or one that was released. Raises ``SystemExit`` where buf refuses it."""
    if path.is_file():
        return FileDescriptorSet.FromString(gzip.decompress(path.read_bytes()))
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "contract.binpb"
        built = buf("build", "proto", "-o", target, folder=path)
        if built.returncode:
            raise SystemExit(f"contract: {path / 'proto'} does not build:\n{built.stdout}{built.stderr}")
        return FileDescriptorSet.FromString(target.read_bytes())


def _messages(prefix: str, messages: Any) -> Iterator[tuple[str, DescriptorProto]]:
    for message in messages:
        name = f"{prefix}.{message.name}"
        yield name, message
        yield from _messages(name, message.nested_type)


def _flat(prefix: str, rules: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in rules.items():
        path = f"{prefix}.{key}" if prefix else key
        if isinstance(value, dict):
            yield from _flat(path, value)
        else:
            yield path, str(value)


def rules(contract: FileDescriptorSet) -> dict[str, dict[str, str]]:
    """Return each field's validation rules, for example ``{"string.max_len": "64"}`` by its full name."""
    pool = descriptor_pool.DescriptorPool()
    for file in contract.file:
        pool.Add(file)
    options = message_factory.GetMessageClass(pool.FindMessageTypeByName("google.protobuf.FieldOptions"))
    extension: Any = pool.FindExtensionByName("buf.validate.field")
    found = {}
    for file in contract.file:
        if file.package != PACKAGE:
            continue
        for name, message in _messages(PACKAGE, file.message_type):
            for field in message.field:
                declared: Any = options.FromString(field.options.SerializeToString())
                written = MessageToDict(declared.Extensions[extension], preserving_proto_field_name=True)
                found[f"{name}.{field.name}"] = dict(_flat("", written))
    return found


def _number(value: str) -> float:
    return float(value.removesuffix("s"))  # a Duration is written as seconds, "60s"


def _narrower(rule: str, before: str | None, now: str | None) -> bool:
    if now is None or before == now:
        return False
    kind = rule.rsplit(".", 1)[-1]
    if before is None or kind not in _UPPER | _LOWER:
        return True
    return _number(now) < _number(before) if kind in _UPPER else _number(now) > _number(before)


def narrowed(before: FileDescriptorSet, now: FileDescriptorSet) -> Iterator[str]:
    """Say which rules of fields that were released accept less than they did."""
    current = rules(now)
    for field, old in rules(before).items():
        new = current.get(field, {})  # buf says which fields are gone
        for rule in sorted(new):
            if _narrower(rule, old.get(rule), new[rule]):
                was = old.get(rule, "absent")
                yield f"{field}: the rule {rule} was {was} and is {new[rule]}: callers of before are refused"


def statuses(contract: FileDescriptorSet) -> dict[str, str]:
    """Return the status code of each reason of an error, which its comment begins with."""
    for file in contract.file:
        for position, enum in enumerate(file.enum_type):
            if (file.package, enum.name) == (PACKAGE, "ErrorReason"):
                names: dict[tuple[int, ...], str] = {
                    (_ENUM, position, _VALUE, i): value.name for i, value in enumerate(enum.value)
                }
                return {
                    names[tuple(location.path)]: location.leading_comments.split(":", 1)[0].strip()
                    for location in file.source_code_info.location
                    if tuple(location.path) in names
                }
    return {}


def moved(before: FileDescriptorSet, now: FileDescriptorSet) -> Iterator[str]:
    """Say which reasons have another status code than they were released with."""
    current = statuses(now)
    for reason, status in statuses(before).items():
        if current.get(reason, status) != status:
            yield f"{reason}: its status was {status} and is {current[reason]}: who branches on it goes wrong"


def breaks(folder: Path, released: Path) -> list[str]:
    """Return what the contract in ``folder`` breaks of a released one, a line each."""
    compared = buf("breaking", "proto", "--against", released, folder=folder)
    lines = (compared.stdout + compared.stderr).splitlines() if compared.returncode else []
    before, now = image(released), image(folder)
    return [*lines, *narrowed(before, now), *moved(before, now)]


def check(folder: Path) -> int:
    """Compare with every released contract; return the exit status."""
    versions = sorted(RELEASED.glob("v*.binpb.gz"))
    if not versions:
        print(f"contract: {RELEASED} has no released contract to compare with", file=sys.stderr)
        return 1
    status = 0
    for released in versions:
        lines = breaks(folder, released)
        name = released.name.removesuffix(".binpb.gz")
        print(f"{name}: {'broken' if lines else 'kept'}", *lines, sep="\n  ")
        status = status or (1 if lines else 0)
    return status


def release() -> int:
    """Write the contract of this version; a released one is not written again."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    target = RELEASED / f"v{version}.binpb.gz"
    if target.exists():
        print(f"contract: {target} was released: raise the version first", file=sys.stderr)
        return 1
    if RELEASED.is_dir() and any(RELEASED.iterdir()) and check(ROOT):
        return 1
    RELEASED.mkdir(exist_ok=True)
    built = buf("build", "proto", "-o", target)
    print(built.stderr or f"contract: wrote {target}", end="" if built.stderr else "\n")
    return built.returncode


def main(arguments: list[str]) -> int:
    """Do what the command line says."""
    match arguments:
        case ["check"]:
            return check(ROOT)
        case ["check", folder]:
            return check(Path(folder).resolve())
        case ["release"]:
            return release()
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
