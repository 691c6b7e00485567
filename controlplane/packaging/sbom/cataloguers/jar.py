"""Java archives: ``pom.properties`` says what a jar is; its manifest only says how it likes to be called.

Maven's coordinates, under which advisories are filed, stand in
``META-INF/maven/<group>/<artifact>/pom.properties``. Where a jar has none, a name made up from its file name
or manifest would look like coordinates and match nothing: a miss that nobody sees. So such a jar becomes a
component without an ecosystem, whose note says what is missing. A jar with several (its dependencies were
merged into it) has its own classes claimed by the one it is named after. What a ``pom.xml`` declares is not
read: its versions come from parents and properties that are not in the jar.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from controlplane.packaging.records import ArtefactFacts, ArtefactType, Component
from controlplane.packaging.sbom.cataloguers import maven_repository
from controlplane.packaging.sbom.errors import BadMetadata
from controlplane.packaging.sbom.found import found
from controlplane.packaging.sbom.headers import Headers, manifest, value
from controlplane.packaging.sbom.purls import Purl, make_purl
from controlplane.packaging.sbom.text import clean, required
from controlplane.packaging.sbom.trees import NESTED, Tree

UNKNOWN = (
    "its Maven coordinates are not known: it has no pom.properties, and a guess could match the wrong "
    "advisories or none"
)

_POM = re.compile(r"(?P<root>.*?)META-INF/maven/(?P<group>[^/]+)/(?P<artifact>[^/]+)/pom\.properties$")
_MANIFEST = re.compile(r"(?P<root>.*?)META-INF/MANIFEST\.MF$", re.IGNORECASE)
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_FILE_NAME = re.compile(r"(?P<name>.+?)(?:-(?P<version>[0-9][^/]*))?\.[A-Za-z]+")
_TITLES = ("Bundle-SymbolicName", "Automatic-Module-Name", "Implementation-Title", "Specification-Title")
_VERSIONS = ("Implementation-Version", "Bundle-Version", "Specification-Version")


def wants(tree: Tree, path: str) -> bool:
    """Return whether ``path`` says what a jar is: a pom.properties, or a manifest where there is none."""
    if _POM.match(path):
        return True
    match = _MANIFEST.match(path)
    if match is None or _poms(tree, match["root"]):
        return False
    archive = match["root"].removesuffix(NESTED)
    return archive == match["root"] or not maven_repository.names(tree, archive)


def components(tree: Tree, path: str, facts: ArtefactFacts) -> Iterable[Component]:
    """Return the component that a pom.properties or a manifest stands for.

    Raises:
        BadMetadata: it breaks its format, or has coordinates that cannot be used.
    """
    pom = _POM.match(path)
    if pom is None:
        return [_without_coordinates(tree, path, facts)]
    purl = _coordinates(tree, path, pom["group"], pom["artifact"])
    if not _is_own(tree, pom["root"], path, purl, facts):
        return [found(purl, files=_directory_of(tree, path))]
    return [found(purl, files=_jar_files(tree, pom["root"]), licences=_licences(tree, pom["root"]))]


def properties(member: str, text: str) -> Mapping[str, str]:
    """Return the keys and values of a Java properties file, as ``java.util.Properties`` reads them."""
    joined = re.sub(r"\\\r?\n[ \t\f]*", "", text)
    pairs = {}
    for line in joined.splitlines():
        stripped = line.lstrip(" \t\f")
        if stripped and stripped[0] not in "#!":
            key, value_ = (*re.split(r"[ \t\f]*[=: \t\f][ \t\f]*", stripped, maxsplit=1), "")[:2]
            pairs[_unescaped(key)] = _unescaped(value_)
    return pairs


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(
        lambda match: chr(int(match[1][1:], 16)) if match[1][0] == "u" and len(match[1]) == 5 else match[1],
        text,
    )


def _coordinates(tree: Tree, path: str, group: str, artifact: str) -> Purl:
    stated = properties(path, tree.text(path))
    version = required(path, "version", stated.get("version"))
    if "${" in version:
        raise BadMetadata(
            path, f"version {version!r} is a placeholder that the build did not fill in; build it again"
        )
    return make_purl(
        "maven",
        required(path, "artifactId", stated.get("artifactId", artifact)),
        version,
        namespace=required(path, "groupId", stated.get("groupId", group)),
        member=path,
    )


def _poms(tree: Tree, root: str) -> Sequence[str]:
    start = f"{root}META-INF/maven/"
    return [path for path in tree.readable_below(start) if path.endswith("/pom.properties")]


def _is_own(tree: Tree, root: str, path: str, purl: Purl, facts: ArtefactFacts) -> bool:
    poms = _poms(tree, root)
    if len(poms) == 1:
        return True
    if not root and facts.type is ArtefactType.JAR:
        return facts.name in (purl.name, f"{purl.namespace}:{purl.name}")
    stem = _stem(root)
    # The longest artifact that the file is named after: "a-core-1.2.jar" is a-core's, not a's.
    named = [artifact for pom in poms if stem.startswith(artifact := _artifact(pom))]
    return bool(named) and _artifact(path) == max(named, key=len)


def _artifact(pom: str) -> str:
    return pom.split("/")[-2]


def _stem(root: str) -> str:
    return root.removesuffix("/").removesuffix("!").rpartition("/")[2]


def _jar_files(tree: Tree, root: str) -> Iterable[str]:
    if NESTED not in root:
        return [path for path in tree.below(root) if not _of_another(path, root)]
    # The outermost archive is the file that is there; a reader may have extracted its members beside it.
    archive = root.partition(NESTED)[0]
    return [*([archive] if archive in tree.files else []), *tree.below(root)]


def _of_another(path: str, root: str) -> bool:
    rest = path[len(root) :]
    return NESTED in rest or re.search(r"\.(?:jar|war)$", rest) is not None


def _directory_of(tree: Tree, path: str) -> Iterable[str]:
    if tree.is_nested(path):
        return [tree.claimable(path)]
    return tree.below(path.rpartition("/")[0] + "/")


def _licences(tree: Tree, root: str) -> list[str]:
    path = f"{root}META-INF/MANIFEST.MF"
    if path not in tree:
        return []
    stated = value(manifest(path, tree.text(path)), "Bundle-License")
    return [part.partition(";")[0].strip() for part in stated.split(",")] if stated else []


def _without_coordinates(tree: Tree, path: str, facts: ArtefactFacts) -> Component:
    root = path[: -len("META-INF/MANIFEST.MF")]
    headers = manifest(path, tree.text(path))
    name, version = _called(path, root, headers, facts)
    purl = make_purl("generic", name, version, member=path)
    return found(purl, files=_jar_files(tree, root), licences=_licences(tree, root), notes=[UNKNOWN])


def _called(path: str, root: str, headers: Headers, facts: ArtefactFacts) -> tuple[str, str]:
    titles = [value(headers, title).partition(";")[0] for title in _TITLES]
    versions = [value(headers, title) for title in _VERSIONS]
    file_name = _FILE_NAME.fullmatch(_stem(root))
    if file_name is not None:
        titles.append(file_name["name"])
        versions.append(file_name["version"] or "")
    if facts.type is ArtefactType.JAR:
        titles.append(facts.name)
        versions.append(facts.version)
    name = next(filter(None, (clean(path, "name", title) for title in titles)), "unnamed")
    return name, next(filter(None, (clean(path, "version", text) for text in versions)), "")
