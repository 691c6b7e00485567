"""From package URLs to the ecosystems and names under which advisories are filed (OSV's), and back.

Source of the names: the list of ecosystems in the OSV schema. A distribution's release is added only where
the package URL says it; a guess would turn "not covered" into "clean".
"""

from __future__ import annotations

import re

from controlplane.packaging.records import Ecosystem
from controlplane.packaging.sbom.purls import Purl, normal_pypi_name

_LANGUAGES = {
    "pypi": Ecosystem.PYPI.value,
    "npm": Ecosystem.NPM.value,
    "golang": Ecosystem.GO.value,
    "maven": Ecosystem.MAVEN.value,
}
_RPM_DISTRIBUTIONS = {
    "almalinux": "AlmaLinux",
    "alma": "AlmaLinux",
    "rocky": "Rocky Linux",
    "rockylinux": "Rocky Linux",
    "opensuse": "openSUSE",
    "suse": "SUSE",
    "openeuler": "openEuler",
    "mageia": "Mageia",
}
_DEBIAN_RELEASES = {
    "wheezy": "7",
    "jessie": "8",
    "stretch": "9",
    "buster": "10",
    "bullseye": "11",
    "bookworm": "12",
    "trixie": "13",
    "forky": "14",
}
_RELEASE_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)*)$")


def ecosystem_of(purl: Purl) -> str:
    """Return OSV's name for where a package comes from; empty where OSV has none."""
    if purl.type in _LANGUAGES:
        return _LANGUAGES[purl.type]
    if purl.type == "deb":
        return _debian(purl)
    if purl.type == "rpm":
        return _rpm(purl)
    return ""


def component_name(purl: Purl) -> str:
    """Return the name in its ecosystem: "group:artifact" for Maven, "@scope/name" for npm."""
    if purl.type == "maven" and purl.namespace:
        return f"{purl.namespace.replace('/', '.')}:{purl.name}"
    if purl.type in {"npm", "golang"} and purl.namespace:
        return f"{purl.namespace}/{purl.name}"
    return purl.name


def normal_name(ecosystem: str, name: str) -> str:
    """Return ``name`` by the rules of an ecosystem: folded where two spellings are one package."""
    if ecosystem == Ecosystem.PYPI.value:
        return normal_pypi_name(name)
    if ecosystem.partition(":")[0] in {"Debian", "Ubuntu"}:
        return name.lower()
    return name


def debian_release(distro: str) -> str:
    """Return Debian's release number from "bookworm", "debian-12" or "12.5"; empty where it says none."""
    folded = distro.lower().removeprefix("debian-").removeprefix("debian:")
    if folded in _DEBIAN_RELEASES:
        return _DEBIAN_RELEASES[folded]
    number = _RELEASE_NUMBER.fullmatch(folded)
    return number[1].partition(".")[0] if number else ""


def _debian(purl: Purl) -> str:
    distro = purl.qualifier("distro")
    if purl.namespace == "ubuntu" or distro.lower().startswith("ubuntu"):
        number = _RELEASE_NUMBER.search(distro)
        return f"Ubuntu:{_ubuntu_release(number[1])}" if number else "Ubuntu"
    release = debian_release(distro)
    return f"{Ecosystem.DEBIAN.value}:{release}" if release else Ecosystem.DEBIAN.value


def _ubuntu_release(number: str) -> str:
    # OSV marks the releases with long support, which come in April of even years.
    year, _, month = number.partition(".")
    return f"{number}:LTS" if month == "04" and int(year) % 2 == 0 else number


def _rpm(purl: Purl) -> str:
    name = _RPM_DISTRIBUTIONS.get(purl.namespace)
    if name is None:
        return Ecosystem.RPM.value
    number = _RELEASE_NUMBER.search(purl.qualifier("distro"))
    # OSV files AlmaLinux and Rocky under the major release.
    return f"{name}:{number[1].partition('.')[0]}" if number else name
