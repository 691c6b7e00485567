"""What the host's own policy decides. No I/O; paths arrive resolved.

Invariants:

* A request that a rule does not name is refused; no argument of a request can
  add to what a rule allows.
* A limit that a request leaves open gets the default or the policy's limit,
  whichever is smaller. A limit that a request states above the policy's is
  refused, not cut: the caller would otherwise take a partial run for a whole one.
* Every refusal names the entry of the policy file that would have to change.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

# Names the agent's own user in `script.users`, whatever that user is called on a host.
OWN_USER = "@agent"

# The contract's defaults for fields that a request leaves open (ScriptSpec, LogsSpec).
DEFAULT_SCRIPT_TIME = timedelta(minutes=5)
DEFAULT_OUTPUT_BYTES = 1 << 20
DEFAULT_LOG_BYTES = 256 << 10

_MAX_AGENT_ID = 63


class RefusedError(Exception):
    """The host's own policy does not allow the work; the text names the policy entry."""


@dataclass(frozen=True, slots=True)
class ScriptRules:
    """What the policy says of scripts; ``interpreters`` maps a name to an absolute path."""

    interpreters: Mapping[str, str]
    users: Collection[str]
    denied_environment: Sequence[str]
    max_time: timedelta
    max_output_bytes: int


@dataclass(frozen=True, slots=True)
class ScriptRequest:
    """What a server asks for; an empty user, no time and 0 bytes mean "not said"."""

    interpreter: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    user: str
    time_limit: timedelta | None
    output_limit: int


@dataclass(frozen=True, slots=True)
class ScriptGrant:
    """What may be run. ``user`` is None for the user that the agent runs as."""

    interpreter_path: str
    user: str | None
    time_limit: timedelta
    output_limit: int


@dataclass(frozen=True, slots=True)
class InstallRules:
    """What the host's owner lets be installed, and where."""

    trusted_root: Path | None
    """File of the owner's own; None for the one that came when the host was enrolled."""
    channels: Sequence[str]
    prefix: Path | None
    """None for no packages of files."""
    dpkg: bool
    commands_as: str
    """User that a package's own command may run as, to find out whether it works; empty for none."""
    max_bytes: int
    """Of one package file."""


def check_kind(kind: str | None, known: Collection[str], allowed: Collection[str]) -> None:
    """Raise ``RefusedError`` unless this host knows ``kind`` and its policy allows it."""
    if kind is None or kind not in known:
        raise RefusedError(f"this agent does not know the kind of work {kind or '(none set)'!r}")
    if kind not in allowed:
        raise RefusedError(f"policy task_kinds: {kind!r} is not listed")


def grant_script(
    rules: ScriptRules, request: ScriptRequest, *, own_user: str, may_switch_user: bool
) -> ScriptGrant:
    """Return what may be run for ``request``, or raise ``RefusedError``.

    ``may_switch_user`` is whether the operating system lets the agent take
    another user's identity, which on POSIX means that it runs as root.
    """
    path = rules.interpreters.get(request.interpreter)
    if path is None:
        raise RefusedError(f"policy script.interpreters: {request.interpreter!r} is not listed")
    _check_texts(rules, request)
    return ScriptGrant(
        interpreter_path=path,
        user=_granted_user(rules, request.user, own_user, may_switch_user),
        time_limit=_granted_time(request.time_limit, rules.max_time),
        output_limit=_granted_bytes(
            "limits.output_bytes", request.output_limit, DEFAULT_OUTPUT_BYTES, rules.max_output_bytes
        ),
    )


def grant_log_bytes(requested: int, limit: int) -> int:
    """Return how many bytes of a log may be sent, or raise ``RefusedError``."""
    return _granted_bytes("limits.log_bytes", requested, DEFAULT_LOG_BYTES, limit)


def check_log_path(resolved: str, patterns: Sequence[str]) -> None:
    """Raise ``RefusedError`` unless a pattern matches ``resolved``.

    ``resolved`` must be absolute and free of symbolic links and ``..``: the
    patterns speak of where a file really is, so that a link cannot leave them.
    """
    if not any(path_matches(resolved, pattern) for pattern in patterns):
        raise RefusedError(f"policy logs.paths: no pattern allows {resolved!r}")


def path_matches(path: str, pattern: str) -> bool:
    """Tell whether ``pattern`` matches all of ``path``, both absolute.

    ``*``, ``?`` and ``[…]`` stay within one folder; ``**`` stands for any number
    of folders, none included. Nothing matches a path with a ``..`` in it.
    """
    parts, wanted = PurePosixPath(path).parts, PurePosixPath(pattern).parts
    if ".." in parts or not path.startswith("/"):
        return False
    # reached[i]: the first i parts are matched by the pattern so far. One row a pattern part keeps
    # the work at len(parts) * len(wanted), however many ** there are.
    reached = [True] + [False] * len(parts)
    for want in wanted:
        reached = _any_depth(reached) if want == "**" else _one_level(reached, parts, want)
    return reached[-1]


def _any_depth(reached: list[bool]) -> list[bool]:
    seen, row = False, []
    for here in reached:
        seen = seen or here
        row.append(seen)
    return row


def _one_level(reached: list[bool], parts: Sequence[str], want: str) -> list[bool]:
    return [False] + [
        before and fnmatchcase(part, want) for before, part in zip(reached[:-1], parts, strict=True)
    ]


def busy_ratio(before: Mapping[str, float], after: Mapping[str, float]) -> float | None:
    """Return the busy share, 0 to 1, of the processor time between two readings in seconds.

    The keys are psutil's: waiting for a disk counts as idle, and the time of
    guests stands in ``user`` and ``nice`` already (proc(5), /proc/stat). None
    where no time has passed.
    """
    counted = [name for name in after if name not in ("guest", "guest_nice")]
    spent = {name: max(0.0, after[name] - before.get(name, 0.0)) for name in counted}
    total = sum(spent.values())
    if total <= 0:
        return None
    idle = spent.get("idle", 0.0) + spent.get("iowait", 0.0)
    return min(1.0, max(0.0, (total - idle) / total))


def agent_id_from(hostname: str) -> str:
    """Return the agent id that ``hostname`` gives, or "" where nothing of it fits.

    The contract's pattern: 1 to 63 lower-case letters, digits and hyphens, a
    letter or digit first and last. Dots and every other character become hyphens.
    """
    dashed = re.sub(r"[^a-z0-9]+", "-", hostname.lower()).strip("-")
    return dashed[:_MAX_AGENT_ID].strip("-")


def _check_texts(rules: ScriptRules, request: ScriptRequest) -> None:
    """Refuse variables that the policy denies, and texts that no process can be given."""
    for name, value in request.environment.items():
        for pattern in rules.denied_environment:
            if fnmatchcase(name, pattern):
                raise RefusedError(f"policy script.denied_environment: {pattern!r} denies {name!r}")
        if "\0" in value:
            raise RefusedError(f"script.environment[{name!r}]: has a NUL character; leave it out")
    for index, argument in enumerate(request.arguments):
        if "\0" in argument:
            raise RefusedError(f"script.arguments[{index}]: has a NUL character; leave it out")


def _granted_user(rules: ScriptRules, asked: str, own_user: str, may_switch: bool) -> str | None:
    if asked in ("", own_user):
        if OWN_USER not in rules.users and own_user not in rules.users:
            raise RefusedError(
                f"policy script.users: neither {OWN_USER!r} nor {own_user!r} is listed, "
                "so the script must name a user that is"
            )
        return None
    if asked not in rules.users:
        raise RefusedError(f"policy script.users: {asked!r} is not listed")
    if not may_switch:
        raise RefusedError(
            f"script.user {asked!r}: the agent runs as {own_user!r} and only root may run as another user"
        )
    return asked


def _granted_time(asked: timedelta | None, limit: timedelta) -> timedelta:
    if asked is None:
        return min(DEFAULT_SCRIPT_TIME, limit)
    if asked > limit:
        raise RefusedError(
            f"policy limits.script_time_seconds: {limit.total_seconds():g} s is less than "
            f"the {asked.total_seconds():g} s asked for"
        )
    return asked


def _granted_bytes(entry: str, asked: int, default: int, limit: int) -> int:
    if asked == 0:
        return min(default, limit)
    if asked > limit:
        raise RefusedError(f"policy {entry}: {limit} is less than the {asked} bytes asked for")
    return asked


def printable(name: str) -> str:
    """Return ``name`` with what is not UTF-8 replaced, for a message: protobuf takes no such text.

    The kernel's names (mount points, interfaces) are bytes; Python keeps those
    that are not UTF-8 as lone surrogates (PEP 383).
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
