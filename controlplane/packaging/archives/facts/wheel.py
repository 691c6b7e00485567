"""Wheels: METADATA, WHEEL and RECORD of the one .dist-info folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product

from controlplane.packaging.archives.errors import BadArtefact, Code, printable
from controlplane.packaging.archives.facts.architectures import FAMILIES
from controlplane.packaging.archives.facts.fields import mail_fields, stanza_fields
from controlplane.packaging.archives.facts.pypi import NAME, VERSION, same_name, same_version
from controlplane.packaging.archives.facts.record import verify_record
from controlplane.packaging.archives.tree import Tree
from controlplane.packaging.records import ArtefactFacts, ArtefactType

INFO = ".dist-info"
WHEEL_VERSION = re.compile(r"1\.[0-9]{1,3}")
TAG = re.compile(r"[A-Za-z0-9_.]{1,400}-[A-Za-z0-9_.]{1,400}-[A-Za-z0-9_.]{1,1000}")
TAGS = 1000
"""Tags that one wheel may expand to; the widest real ones have some dozens."""
PLATFORM = re.compile(
    r"(?:(?P<many>manylinux|musllinux)[0-9]*(?:_[0-9]+_[0-9]+)?"
    r"|(?P<linux>linux)|(?P<mac>macosx)_[0-9]+_[0-9]+)"
    r"_(?P<machine>\w+)"
)


def wheel_facts(tree: Tree, declared_name: str) -> ArtefactFacts:
    """Name, version and platform of an extracted wheel, whose RECORD is verified.

    Raises ``BAD_METADATA``, ``CONFLICTING_METADATA``, ``NOT_WHAT_IT_SAYS``, ``LINK_NOT_ALLOWED`` and what
    ``verify_record`` raises.
    """
    info = _info(tree)
    _refuse_links(tree)
    verify_record(tree, info)
    metadata = mail_fields(tree.text(f"{info}/METADATA"), f"{info}/METADATA")
    name, version = metadata.matching("Name", NAME), metadata.matching("Version", VERSION)
    metadata.one("Metadata-Version")
    wheel = stanza_fields(tree.text(f"{info}/WHEEL"), f"{info}/WHEEL")
    wheel.matching("Wheel-Version", WHEEL_VERSION)
    tags = expanded(wheel.all("Tag"), f"{info}/WHEEL")
    _check_folder(info, name, version)
    file_tags = _check_file_name(declared_name, name, version)
    details = metadata.details("Summary", "License", "License-Expression", "Requires-Python", "Requires-Dist")
    details["tags"] = " ".join(tags)
    if file_tags and file_tags != tags:
        # Installers choose by the file's name; the wheel's own word is what is kept.
        details["tags_of_file_name"] = " ".join(file_tags)
    architecture, family = platform_of(tags)
    return ArtefactFacts(ArtefactType.WHEEL, name, version, architecture, family, details)


def _info(tree: Tree) -> str:
    folders = sorted({path.partition("/")[0] for path in tree.files if path.partition("/")[0].endswith(INFO)})
    if len(folders) != 1:
        message = f"has {len(folders)} .dist-info folders, and a wheel has one"
        raise BadArtefact(Code.CONFLICTING_METADATA, ", ".join(folders), message)
    return folders[0]


def _refuse_links(tree: Tree) -> None:
    for entry in tree.files.values():
        if entry.link_target:
            message = "is a link, which installers of wheels do not make"
            raise BadArtefact(Code.LINK_NOT_ALLOWED, entry.path, message)


def _check_folder(info: str, name: str, version: str) -> None:
    folder_name, _, folder_version = info.removesuffix(INFO).partition("-")
    if not same_name(folder_name, name) or not same_version(folder_version, version):
        message = f"says {printable(name)} {printable(version)} inside, in a folder named otherwise"
        raise BadArtefact(Code.CONFLICTING_METADATA, info, message)


def _check_file_name(declared_name: str, name: str, version: str) -> list[str]:
    if not declared_name.lower().endswith(".whl"):
        return []
    parts = declared_name[:-4].split("-")
    if len(parts) not in (5, 6) or not same_name(parts[0], name) or not same_version(parts[1], version):
        message = f"is {printable(name)} {printable(version)} by its METADATA; name it by that"
        raise BadArtefact(Code.NOT_WHAT_IT_SAYS, declared_name, message)
    return expanded(["-".join(parts[-3:])], declared_name)


def expanded(tags: Sequence[str], member: str) -> list[str]:
    """Tags one by one, sorted, where several may be written as one with dots (PEP 425); ``BAD_METADATA``."""
    found: set[str] = set()
    for tag in tags:
        if not TAG.fullmatch(tag.strip()):
            raise BadArtefact(Code.BAD_METADATA, member, f"{printable(tag)!r} is no tag of a wheel")
        pythons, abis, platforms = (part.split(".") for part in tag.strip().split("-"))
        if len(pythons) * len(abis) * len(platforms) > TAGS:
            raise BadArtefact(Code.BAD_METADATA, member, f"a tag expands to more than {TAGS}")
        found.update("-".join(one) for one in product(pythons, abis, platforms))
    if not found or len(found) > TAGS:
        raise BadArtefact(Code.BAD_METADATA, member, f"has {len(found)} tags, and 1 to {TAGS} are allowed")
    return sorted(found)


def platform_of(tags: Sequence[str]) -> tuple[str, str]:
    """Architecture and family of systems that tags name: ("any", "") where a wheel runs on all."""
    platforms = {tag.rpartition("-")[2] for tag in tags}
    found = {_platform(platform) for platform in platforms}
    architectures = sorted({architecture for architecture, _ in found})
    families = {family for _, family in found}
    return ",".join(architectures), families.pop() if len(families) == 1 else ""


def _platform(platform: str) -> tuple[str, str]:
    if platform == "any":
        return "any", ""
    if platform.startswith("win"):
        return platform, "windows"
    match = PLATFORM.fullmatch(platform)
    if match is None:
        return platform, ""
    return match["machine"], FAMILIES[match["many"] or match["linux"] or match["mac"]]
