"""The ``fleetwright-agent`` command: where it starts, and how it says what went wrong."""

from __future__ import annotations

import sys

EXIT_FAILURE = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count it


def main() -> None:
    """Run the command; every failure is one line on standard error and an exit status."""
    if sys.platform != "linux":
        print(
            f"error: fleetwright-agent runs on Linux, and this is {sys.platform}; the protocol in "
            "docs/agent-protocol.md is not bound to it, so an agent of your own may be",
            file=sys.stderr,
        )
        raise SystemExit(EXIT_FAILURE)
    # Only now: what works on the host imports what only a POSIX system has.
    from agent_sim.agent.commands import app, explain

    try:
        app(prog_name="fleetwright-agent")
    except KeyboardInterrupt:
        raise SystemExit(EXIT_INTERRUPTED) from None
    except Exception as error:  # noqa: BLE001 - the last stop: a person is told in words, not by a traceback
        print(f"error: {explain(error)}", file=sys.stderr)
        raise SystemExit(EXIT_FAILURE) from None


if __name__ == "__main__":
    main()
