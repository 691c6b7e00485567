"""The control file of a .deb (deb-control(5)), from validated fields, and Debian's way to write names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from controlplane.packaging.building.errors import BuildFailed

MAX_FIELD: Final = 4_096
"""Characters of a field of one line; of the description sixteen times as many."""

_PACKAGE: Final = re.compile(r"[a-z0-9][a-z0-9+.-]{1,127}")
_VERSION: Final = re.compile(r"(?:[0-9]{1,9}:)?[0-9][A-Za-z0-9.+~]*(?:-[A-Za-z0-9.+~-]*[A-Za-z0-9.+~])?")
_ARCHITECTURE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_MAINTAINER: Final = re.compile(r"[^<>,\s][^<>,]{0,200} <[^<>@\s]{1,64}@[^<>@\s]{1,190}>")
_WORD: Final = re.compile(r"[a-z0-9][a-z0-9+./-]{0,63}")
_URL: Final = re.compile(r"https?://[^\s<>]{1,500}")
_ALTERNATIVE: Final = re.compile(
    r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9-]+)?(?: \((?:<<|<=|=|>=|>>) [0-9][A-Za-z0-9.+:~-]*\))?"
)
_CONTROL: Final = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff]")


@dataclass(frozen=True, slots=True)
class DebOptions:
    """What a .deb says beside what its manifest knows."""

    maintainer: str
    """"Name <name@example.org>", as Debian wants it."""
    description: str
    """The first line is the summary."""
    section: str = "misc"
    priority: str = "optional"
    depends: str = ""
    homepage: str = ""
    conffiles: tuple[str, ...] = ()
    """Prefix paths of files that an endpoint's administrator may change, and dpkg then keeps."""

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> DebOptions:
        """Read them from an object of JSON; raises ``BuildFailed``."""
        known = set(cls.__dataclass_fields__)
        for name, value in document.items():
            if name not in known:
                raise BuildFailed(
                    "CONTROL", name[:64], f"is no option of a .deb; {', '.join(sorted(known))} are"
                )
            if name != "conffiles" and not isinstance(value, str):
                raise BuildFailed("CONTROL", name, "is not a text")
        missing = {"maintainer", "description"} - set(document)
        if missing:
            raise BuildFailed("CONTROL", min(missing), "is missing: dpkg wants it in every package")
        conffiles = document.get("conffiles", ())
        if not isinstance(conffiles, list | tuple) or not all(isinstance(one, str) for one in conffiles):
            raise BuildFailed("CONTROL", "conffiles", "is not a list of texts")
        return cls(**{**document, "conffiles": tuple(conffiles)})


def debian_name(name: str) -> str:
    """Return a name in Debian's alphabet: "@scope/Some_name" becomes "scope-some-name"."""
    plain = re.sub(r"[^a-z0-9+.-]+", "-", name.lower()).strip("-+.")
    if not _PACKAGE.fullmatch(plain):
        raise BuildFailed(
            "CONTROL", "Package", f"no name of a Debian package can be made of {name[:64]!r}; give one"
        )
    return plain


def debian_version(version: str) -> str:
    """Return a version as dpkg takes it: Python's epoch "1!2.0" becomes "1:2.0", "_" becomes "+"."""
    plain = version.replace("!", ":", 1).replace("_", "+")
    if not _VERSION.fullmatch(plain):
        raise BuildFailed(
            "CONTROL", "Version", f"{version[:64]!r} is none for dpkg: it begins with a digit; give one"
        )
    return plain


def control_text(
    package: str, version: str, architecture: str, options: DebOptions, installed_kib: int
) -> bytes:
    """Return the control file; raises ``BuildFailed``, which names the field."""
    fields = {
        "Package": _matching("Package", package, _PACKAGE),
        "Version": _matching("Version", version, _VERSION),
        "Architecture": _matching("Architecture", architecture, _ARCHITECTURE),
        "Maintainer": _matching("Maintainer", options.maintainer, _MAINTAINER),
        "Installed-Size": str(installed_kib),
        "Depends": _depends(options.depends),
        "Section": _matching("Section", options.section, _WORD),
        "Priority": _matching("Priority", options.priority, _WORD),
        "Homepage": _matching("Homepage", options.homepage, _URL) if options.homepage else "",
        "Description": _description(options.description),
    }
    return "".join(f"{name}: {value}\n" for name, value in fields.items() if value).encode()


def _matching(field: str, value: str, pattern: re.Pattern[str]) -> str:
    # The line breaks of Unicode are looked for by themselves: patterns of "anything but" let them through.
    if len(value) > MAX_FIELD or _CONTROL.search(value) or not pattern.fullmatch(value):
        raise BuildFailed("CONTROL", field, f"cannot be {value[:64]!r} in a .deb")
    return value


def _depends(text: str) -> str:
    if len(text) > MAX_FIELD:
        raise BuildFailed(
            "CONTROL", "Depends", f"has {len(text)} characters; at most {MAX_FIELD} are allowed"
        )
    groups = [[one.strip(" ") for one in group.split("|")] for group in text.split(",")] if text else []
    for one in (one for group in groups for one in group):
        _matching("Depends", one, _ALTERNATIVE)
    return ", ".join(" | ".join(group) for group in groups)


def _description(text: str) -> str:
    lines = text.split("\n")
    if len(text) > 16 * MAX_FIELD or any(_CONTROL.search(line) for line in lines) or not lines[0].strip():
        raise BuildFailed(
            "CONTROL", "Description", "begins with a line of summary, and has no control characters"
        )
    more = ["" if not line.strip() else line.rstrip() for line in lines[1:]]
    while more and not more[-1]:
        more.pop()
    return "\n".join([lines[0].strip(), *(f" {line}" if line else " ." for line in more)])
