"""Debian packages: the control file of control.tar (deb-control(5))."""

from __future__ import annotations

import re

from controlplane.packaging.archives.errors import BadArtefact, Code, printable
from controlplane.packaging.archives.facts.architectures import machine_of
from controlplane.packaging.archives.facts.fields import stanza_fields
from controlplane.packaging.archives.tree import Tree
from controlplane.packaging.records import ArtefactFacts, ArtefactType

CONTROL = "control/control"
NAME = re.compile(r"[a-z0-9][a-z0-9+.-]{1,199}")
VERSION = re.compile(r"(?:[0-9]{1,9}:)?[0-9][A-Za-z0-9.+~:-]{0,255}")
ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
SHOWN = (
    "Maintainer",
    "Source",
    "Section",
    "Depends",
    "Installed-Size",
    "Multi-Arch",
    "Homepage",
    "Description",
)
SCRIPTS = ("preinst", "postinst", "prerm", "postrm", "config", "triggers")
OTHER_KERNELS = {"hurd": "hurd", "kfreebsd": "freebsd"}


def deb_facts(tree: Tree, declared_name: str) -> ArtefactFacts:
    """Name, version and architecture of an extracted deb, and what it would run while it is installed.

    Raises ``BAD_METADATA``, ``DUPLICATE_FIELD``, ``NOT_WHAT_IT_SAYS`` where the file's name has dpkg's form
    ``name_version_architecture.deb`` and names another package.
    """
    control = stanza_fields(tree.text(CONTROL), CONTROL)
    name = control.matching("Package", NAME)
    version = control.matching("Version", VERSION)
    architecture = control.matching("Architecture", ARCHITECTURE)
    if architecture in ("any", "source"):
        message = f"its Architecture is {architecture}, which sources have and packages never"
        raise BadArtefact(Code.BAD_METADATA, CONTROL, message)
    _check_file_name(declared_name, name, version, architecture)
    details = control.details(*SHOWN)
    scripts = [script for script in SCRIPTS if f"control/{script}" in tree.files]
    if scripts:
        details["scripts"] = ", ".join(scripts)
    if machine_of(architecture):
        details["machine"] = machine_of(architecture)
    kernel = architecture.partition("-")[0] if "-" in architecture else ""
    family = OTHER_KERNELS.get(kernel, "linux")
    return ArtefactFacts(ArtefactType.DEB, name, version, architecture, family, details)


def _check_file_name(declared_name: str, name: str, version: str, architecture: str) -> None:
    parts = declared_name.rpartition(".")[0].split("_")
    if len(parts) != 3:
        return
    # dpkg leaves the epoch out of file names; mirrors write its colon as %3a.
    plain = version.partition(":")[2] or version
    versions = {version, plain, version.replace(":", "%3a"), version.replace(":", "%3A")}
    if parts[0] != name or parts[1] not in versions or parts[2] != architecture:
        message = f"is {printable(name)} {printable(version)} for {architecture} inside; name it by that"
        raise BadArtefact(Code.NOT_WHAT_IT_SAYS, declared_name, message)
