"""The manifest of a deployable package: what an agent does with it, as data and never as a script.

It is JSON of the schema ``fleetwright.package/v1``. The factory writes it into the package, the agent reads
it from there; both through this module, which needs nothing but the standard library. ``parse`` takes
nothing that it does not understand: an unknown field, a field twice, a path that leaves its folder, a link
that could lead a later write elsewhere, each is an error that names the field.

Two kinds of paths occur, both relative and with "/" between parts: *package paths* name files as they lie
in the package; *prefix paths* name them below the folder that this version is installed in. ``copy_tree``
steps lead from the one to the other (``installed_files``).
"""

from fleetwright.manifest.checks import installed_files, matches
from fleetwright.manifest.fields import Fields, ManifestError
from fleetwright.manifest.packed import read_manifest
from fleetwright.manifest.reading import MAX_BYTES, decode, dump, parse, parse_part
from fleetwright.manifest.shapes import (
    ANY,
    SCHEMA,
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

__all__ = [
    "ANY",
    "MAX_BYTES",
    "SCHEMA",
    "CommandDetect",
    "CopyTree",
    "Detect",
    "DpkgDetect",
    "DpkgInstall",
    "DpkgRemove",
    "Fields",
    "FileDetect",
    "InstallStep",
    "Link",
    "Manifest",
    "ManifestError",
    "PackagedFile",
    "Platform",
    "RemoveTree",
    "Rollback",
    "UninstallStep",
    "Unlink",
    "decode",
    "dump",
    "installed_files",
    "matches",
    "parse",
    "parse_part",
    "read_manifest",
]
