"""From JSON to a manifest and back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from fleetwright.manifest.checks import check
from fleetwright.manifest.fields import MAX_PATH, Fields, ManifestError, normal_path
from fleetwright.manifest.shapes import (
    SCHEMA,
    STRATEGIES,
    TYPES,
    CommandDetect,
    CopyTree,
    Detect,
    DpkgDetect,
    DpkgInstall,
    DpkgRemove,
    FileDetect,
    InstallStep,
    Link,
    Manifest,
    PackagedFile,
    Platform,
    RemoveTree,
    Rollback,
    UninstallStep,
    Unlink,
)

MAX_BYTES: Final = 16 * 2**20
"""Of the JSON text: room for ``MAX_FILES`` files with paths of usual length."""
MAX_FILES: Final = 65_536
MAX_SIZE: Final = 2**40
"""Bytes, of one file and of the disk needed: 1 TiB."""
MAX_STEPS: Final = 256
MAX_PLATFORMS: Final = 32
MAX_ARGUMENTS: Final = 64
MAX_ARGUMENT: Final = 4_096
MAX_PATTERN: Final = 1_024
MAX_TIMEOUT_SECONDS: Final = 300
MAX_KEPT_VERSIONS: Final = 10

# Names of npm ("@scope/name") and Maven ("group:artifact") included; no part begins with a dot or a dash.
_NAME: Final = re.compile(
    r"(?=.{1,214}\Z)[A-Za-z0-9_@][A-Za-z0-9_.+~-]*(?:[/:][A-Za-z0-9_@][A-Za-z0-9_.+~-]*)*"
)
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+:~!-]{0,127}")
_PLATFORM: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}")
_LINK_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")
_DEBIAN_NAME: Final = re.compile(r"[a-z0-9][a-z0-9+.-]{1,127}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def parse(text: bytes) -> Manifest:
    """Read a manifest; raises ``ManifestError``, which names the field."""
    fields = Fields(decode(text))
    schema = fields.text("schema")
    if schema != SCHEMA:
        raise ManifestError("schema", f"{schema!r} is not known here; {SCHEMA!r} is")
    manifest = _manifest(fields)
    fields.finish()
    check(manifest)
    return manifest


def dump(manifest: Manifest) -> bytes:
    """Write a manifest, the same bytes for the same one; raises ``ManifestError`` for one that is wrong."""
    text = json.dumps(_document(manifest), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    if parse(text) != manifest:
        raise ManifestError("manifest", "does not read back as it was written: its parts must be tuples")
    return text


def _document(manifest: Manifest) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "name": manifest.name,
        "version": manifest.version,
        "type": manifest.type,
        "platforms": [{"os": one.os, "architecture": one.architecture} for one in manifest.platforms],
        "install": [_written(step, "step") for step in manifest.install],
        "uninstall": [_written(step, "step") for step in manifest.uninstall],
        "detect": _written(manifest.detect, "kind"),
        "rollback": asdict(manifest.rollback),
        "disk_bytes": manifest.disk_bytes,
        "files": [
            {name: value for name, value in asdict(file).items() if name != "link_target" or value}
            for file in manifest.files
        ],
        "source_sha256": manifest.source_sha256,
    }


_WORDS: Final[Mapping[type, str]] = {
    CopyTree: "copy_tree",
    Link: "link",
    DpkgInstall: "dpkg_install",
    RemoveTree: "remove_tree",
    Unlink: "unlink",
    DpkgRemove: "dpkg_remove",
    FileDetect: "file",
    CommandDetect: "command",
    DpkgDetect: "dpkg",
}


def _written(part: InstallStep | UninstallStep | Detect, kind: str) -> dict[str, Any]:
    return {kind: _WORDS[type(part)], **asdict(part)}


def decode(text: bytes, most: int = MAX_BYTES) -> Mapping[str, Any]:
    """Read a JSON object of at most ``most`` bytes without fractions and without a name twice in one object.

    Raises ``ManifestError``.
    """
    if len(text) > most:
        raise ManifestError("manifest", f"has {len(text)} bytes; at most {most} are read")
    try:
        document = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_once,
            parse_constant=_no_constant,
            parse_float=_no_constant,
        )
    except UnicodeDecodeError as error:
        raise ManifestError("manifest", f"is not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise ManifestError("manifest", "is nested too deeply") from error
    except ManifestError:
        raise
    except ValueError as error:  # JSONDecodeError, and integers of more digits than Python converts
        raise ManifestError("manifest", f"is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ManifestError("manifest", "is not a JSON object")
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ManifestError(name[:64], "occurs twice in one object")
        found[name] = value
    return found


def _no_constant(text: str) -> Any:
    raise ManifestError("manifest", f"has the number {text[:32]}; only integers occur in it")


def _manifest(fields: Fields) -> Manifest:
    return Manifest(
        name=fields.text("name", _NAME),
        version=fields.text("version", _VERSION),
        type=fields.choice("type", TYPES),
        platforms=_PARTS["platforms"](fields),
        install=_PARTS["install"](fields),
        uninstall=_PARTS["uninstall"](fields),
        detect=_PARTS["detect"](fields),
        rollback=_PARTS["rollback"](fields),
        disk_bytes=_PARTS["disk_bytes"](fields),
        files=fields.items("files", 0, MAX_FILES, _file),
        source_sha256=fields.text("source_sha256", _SHA256),
    )


def _platform(fields: Fields) -> Platform:
    return Platform(fields.text("os", _PLATFORM), fields.text("architecture", _PLATFORM))


def _file(fields: Fields) -> PackagedFile:
    return PackagedFile(
        path=fields.path("path"),
        sha256=fields.text("sha256", _SHA256),
        size=fields.number("size", 0, MAX_SIZE),
        mode=fields.one_of("mode", (0o644, 0o755)),
        link_target=fields.free_text("link_target", MAX_PATH) if "link_target" in fields else "",
    )


def _install_step(fields: Fields) -> InstallStep:
    step = fields.choice("step", {"copy_tree", "link", "dpkg_install"})
    if step == "copy_tree":
        return CopyTree(fields.path("source", root=True), fields.path("destination", root=True))
    if step == "link":
        return Link(fields.text("name", _LINK_NAME), fields.path("target"))
    return DpkgInstall(fields.text("package", _DEBIAN_NAME))


def _uninstall_step(fields: Fields) -> UninstallStep:
    step = fields.choice("step", {"remove_tree", "unlink", "dpkg_remove"})
    if step == "remove_tree":
        return RemoveTree(fields.path("path", root=True))
    if step == "unlink":
        return Unlink(fields.text("name", _LINK_NAME))
    return DpkgRemove(fields.text("package", _DEBIAN_NAME))


def _detect(fields: Fields) -> Detect:
    kind = fields.choice("kind", {"file", "command", "dpkg"})
    if kind == "file":
        return FileDetect(fields.path("path"), fields.text("sha256", _SHA256))
    if kind == "dpkg":
        return DpkgDetect(fields.text("package", _DEBIAN_NAME), fields.text("version", _VERSION))
    arguments = fields.texts("arguments", 1, MAX_ARGUMENTS, MAX_ARGUMENT)
    return CommandDetect(
        arguments=(normal_path(arguments[0], f"{fields.name}.arguments[0]"), *arguments[1:]),
        exit_status=fields.number("exit_status", 0, 255),
        output=fields.free_text("output", MAX_PATTERN),
        timeout_seconds=fields.number("timeout_seconds", 1, MAX_TIMEOUT_SECONDS),
    )


def _rollback(fields: Fields) -> Rollback:
    return Rollback(
        strategy=fields.choice("strategy", STRATEGIES),
        keep_versions=fields.number("keep_versions", 0, MAX_KEPT_VERSIONS),
    )


_PARTS: Final[Mapping[str, Any]] = {
    "platforms": lambda fields: fields.items("platforms", 1, MAX_PLATFORMS, _platform),
    "install": lambda fields: fields.items("install", 1, MAX_STEPS, _install_step),
    "uninstall": lambda fields: fields.items("uninstall", 1, MAX_STEPS, _uninstall_step),
    "detect": lambda fields: fields.read("detect", _detect),
    "rollback": lambda fields: fields.read("rollback", _rollback),
    "disk_bytes": lambda fields: fields.number("disk_bytes", 0, MAX_SIZE),
    "name": lambda fields: fields.text("name", _NAME),
    "version": lambda fields: fields.text("version", _VERSION),
}


def parse_part(name: str, fields: Fields) -> Any:
    """Read one field of a manifest by the rules of the whole, for documents that replace parts of one.

    Raises ``ManifestError``, also for a field that may not be replaced.
    """
    if name not in _PARTS:
        raise ManifestError(name, f"cannot be given; {', '.join(sorted(_PARTS))} can")
    return _PARTS[name](fields)
