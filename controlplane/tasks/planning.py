"""When a new task is due, and whether its options fit together."""

from __future__ import annotations

from datetime import timedelta

import structlog

from controlplane.clock import duration_micros, from_micros
from controlplane.errors import invalid
from controlplane.tasks import windows
from controlplane.tasks.records import Due, Options, Window
from controlplane.tasks.rules import OfflinePolicy

LOOK_AGAIN = timedelta(hours=1)
"""After which a window is read again that could not be."""

_log = structlog.get_logger(__name__)


def next_opening(window: Window, now: int) -> Due:
    """Return the window that is open at ``now``, or else the next one, of what was created before.

    One that can be read no longer is looked at again after ``LOOK_AGAIN``, and holds up nobody else.
    """
    try:
        return windows.opening(window, now)
    except windows.WindowInvalid as error:
        # It could be read when the task was created: what knows the zones has changed, or is older here.
        _log.warning("a maintenance window can no longer be read", cron=window.cron, error=str(error))
        later = now + duration_micros(LOOK_AGAIN)
        return Due(later, later)


def plan(options: Options, now: int) -> Due:
    """Return when a task that is created ``now`` is due.

    Raises ``InvalidArgument`` that names the field of the request's ``options``.
    """
    _check_belonging(options)
    if options.window is None:
        return Due(now)
    try:
        due = windows.opening(options.window, now)
    except windows.WindowInvalid as error:
        raise invalid(f"options.window.{error.field}", str(error)) from None
    if due.not_before >= now + options.queue_time:
        opens, ends = _words(due.not_before), _words(now + options.queue_time)
        raise invalid(
            "options.queue_time",
            f"the window opens at {opens}, and the task is given up at {ends}: let it wait for longer",
        )
    return due


def _check_belonging(options: Options) -> None:
    latest, windowed = options.offline is OfflinePolicy.LATEST, options.offline is OfflinePolicy.WINDOW
    if latest and not options.supersede_key:
        raise invalid(
            "options.supersede_key", "OFFLINE_POLICY_LATEST needs one: of what the task is a version"
        )
    if options.supersede_key and not latest:
        raise invalid(
            "options.supersede_key", "it belongs to OFFLINE_POLICY_LATEST: choose that, or leave it out"
        )
    if "\0" in options.supersede_key:
        raise invalid("options.supersede_key", "has a NUL character; use a word, such as sshd-config")
    if windowed and options.window is None:
        raise invalid("options.window", "OFFLINE_POLICY_WINDOW needs one: cron, time_zone and duration")
    if options.window is not None and not windowed:
        raise invalid("options.window", "it belongs to OFFLINE_POLICY_WINDOW: choose that, or leave it out")


def _words(micros: int) -> str:
    return from_micros(micros).strftime("%Y-%m-%dT%H:%M:%SZ")
