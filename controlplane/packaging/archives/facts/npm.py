"""npm tarballs: package/package.json."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from controlplane.packaging.archives.errors import BadArtefact, Code, printable
from controlplane.packaging.archives.facts.fields import SHOWN
from controlplane.packaging.archives.tree import Tree
from controlplane.packaging.records import ArtefactFacts, ArtefactType

MANIFEST = "package/package.json"
NAME = re.compile(r"(?=.{1,214}\Z)(?:@[A-Za-z0-9~_-][A-Za-z0-9._~-]*/)?[A-Za-z0-9~_-][A-Za-z0-9._~!'()*-]*")
VERSION = re.compile(
    r"(?=.{1,256}\Z)[v=]?(?P<plain>(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)"
    r"(?:-[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?)"
)
INSTALL_SCRIPTS = ("preinstall", "install", "postinstall")
FAMILIES = {"linux": "linux", "win32": "windows", "darwin": "darwin"}


class _Object(dict[str, Any]):
    """An object of JSON that remembers which of its keys came twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counted = Counter(key for key, _ in pairs) if len(self) < len(pairs) else Counter[str]()
        self.twice = sorted(key for key, count in counted.items() if count > 1)


def npm_facts(tree: Tree, declared_name: str) -> ArtefactFacts:
    """Name, version and platform of an extracted npm tarball.

    The file's name is not held against them: registries and people name tarballs as they like. Raises
    ``BAD_METADATA``, ``DUPLICATE_FIELD``, ``LINK_NOT_ALLOWED``.
    """
    for entry in tree.files.values():
        if entry.link_target:
            message = "is a link, which npm neither packs nor extracts"
            raise BadArtefact(Code.LINK_NOT_ALLOWED, entry.path, message)
    manifest = json_object(tree.text(MANIFEST), MANIFEST)
    name = _matching(manifest, "name", NAME).group()
    version = _matching(manifest, "version", VERSION)["plain"]
    return ArtefactFacts(
        ArtefactType.NPM, name, version, _only(manifest, "cpu"), _family(manifest), _details(manifest)
    )


def json_object(text: str, member: str) -> dict[str, Any]:
    """A text of JSON that is one object.

    ``BAD_METADATA``, or ``DUPLICATE_FIELD`` for a key of it that comes twice.
    """
    try:
        found = json.loads(text, object_pairs_hook=_Object, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadArtefact(Code.BAD_METADATA, member, f"is no JSON ({printable(str(error))})") from None
    if not isinstance(found, _Object):
        raise BadArtefact(Code.BAD_METADATA, member, "is JSON, and no object")
    if found.twice:
        message = f"says {', '.join(map(printable, found.twice))} twice, and readers differ over which holds"
        raise BadArtefact(Code.DUPLICATE_FIELD, member, message)
    return found


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


def _matching(manifest: Mapping[str, Any], key: str, grammar: re.Pattern[str]) -> re.Match[str]:
    value = manifest.get(key)
    match = grammar.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        said = repr(printable(value)) if isinstance(value, str) else f"a {type(value).__name__}"
        message = f"its {key} is {said}, which is no valid one for npm"
        raise BadArtefact(Code.BAD_METADATA, MANIFEST, message)
    return match


def _only(manifest: Mapping[str, Any], key: str) -> str:
    """The one value of a list of platforms; empty for none, several, or a refusal such as "!win32"."""
    value = manifest.get(key)
    one = value[0] if isinstance(value, list) and len(value) == 1 else value
    return one if isinstance(one, str) and re.fullmatch(r"[a-z0-9_]{1,20}", one) and one != "any" else ""


def _family(manifest: Mapping[str, Any]) -> str:
    system = _only(manifest, "os")
    return FAMILIES.get(system, system)


def _details(manifest: Mapping[str, Any]) -> dict[str, str]:
    details = {
        key: printable(value, SHOWN)
        for key in ("license", "description", "homepage", "main")
        if isinstance(value := manifest.get(key), str) and value
    }
    scripts = manifest.get("scripts")
    run = [name for name in INSTALL_SCRIPTS if isinstance(scripts, dict) and name in scripts]
    return {**details, "install_scripts": ", ".join(run)} if run else details
