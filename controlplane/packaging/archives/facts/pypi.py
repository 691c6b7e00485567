"""Names and versions of Python packages: the grammar and the equality of PEP 503 and PEP 440."""

from __future__ import annotations

import re

NAME = re.compile(r"(?=.{1,200}\Z)[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
VERSION = re.compile(
    r"""\s*v?
    (?:(?P<epoch>[0-9]{1,9})!)?
    (?P<release>[0-9]{1,32}(?:\.[0-9]{1,32}){0,63})
    (?:[-_.]?(?P<pre>alpha|a|beta|b|preview|pre|c|rc)[-_.]?(?P<pre_number>[0-9]{0,32}))?
    (?P<post>-(?P<bare_post>[0-9]{1,32})|[-_.]?(?:post|rev|r)[-_.]?(?P<post_number>[0-9]{0,32}))?
    (?P<dev>[-_.]?dev[-_.]?(?P<dev_number>[0-9]{0,32}))?
    (?:\+(?P<local>[a-z0-9]+(?:[-_.][a-z0-9]+){0,63}))?
    \s*""",
    re.VERBOSE | re.IGNORECASE,
)
PHASES = {"alpha": "a", "beta": "b", "preview": "rc", "pre": "rc", "c": "rc"}


def same_name(one: str, other: str) -> bool:
    """Whether two names are one project's (PEP 503)."""
    return canonical_name(one) == canonical_name(other)


def canonical_name(name: str) -> str:
    """A project's name as an index writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def same_version(one: str, other: str) -> bool:
    """Whether two texts are one version (PEP 440); file names write "_" where a version has "-"."""
    return _key(one.replace("_", "-")) == _key(other.replace("_", "-"))


def _key(version: str) -> tuple[object, ...]:
    match = VERSION.fullmatch(version)
    if match is None:
        return (version,)
    phase = (match["pre"] or "").lower()
    release = [int(part) for part in match["release"].split(".")]
    while len(release) > 1 and not release[-1]:
        release.pop()
    return (
        int(match["epoch"] or 0),
        tuple(release),
        (PHASES.get(phase, phase), int(match["pre_number"] or 0)),
        int(match["bare_post"] or match["post_number"] or 0) if match["post"] else None,
        int(match["dev_number"] or 0) if match["dev"] else None,
        tuple(re.split(r"[-_.]", (match["local"] or "").lower())),
    )
