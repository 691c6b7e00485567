"""Which function a statement is counted for.

A statement has no name of its own, and its text is no label: a filter makes a new
one for each number of its terms. The function that issued it has one, and there
are as many as the program has. It stands on the chain of coroutines that await the
statement, which is the stack above the driver; what was found of a code object is
remembered (``docs/decisions`` has the measurement).
"""

from __future__ import annotations

import sys
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE
from types import CodeType, FrameType

from controlplane.observability.metrics import Metrics
from controlplane.observability.statements import Tally

OTHER = "other"
"""The name of what no function of the program awaits."""

_OWN = "controlplane."
_CARRIERS = frozenset(
    f"controlplane.storage.{name}" for name in ("prepared", "sqlite.driver", "postgresql.driver")
)
"""Modules that only carry a statement to the database: it is counted for who awaits them."""
_AWAITING = CO_COROUTINE | CO_ASYNC_GENERATOR


class Statements:
    """Knows, for one engine, the tally that a statement belongs to."""

    def __init__(self, metrics: Metrics, engine: str) -> None:
        self._metrics = metrics.statements
        self._engine = engine
        # None marks code that gives no name: the search goes on with who awaits it.
        self._by_code: dict[CodeType, Tally | None] = {}
        self.begin = self._tally("storage.begin")
        self.commit = self._tally("storage.commit")
        self.rollback = self._tally("storage.rollback")

    def of_caller(self) -> Tally:
        """Return the tally of the public function of ours that awaits the caller of this one."""
        by_code = self._by_code
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            code = frame.f_code
            tally = by_code[code] if code in by_code else self._meet(frame)
            if tally is not None:
                return tally
            frame = frame.f_back
        return self._tally(OTHER)

    def _meet(self, frame: FrameType) -> Tally | None:
        code = frame.f_code
        module, name = str(frame.f_globals.get("__name__", "")), code.co_name
        if not code.co_flags & _AWAITING:
            # Who runs the event loop awaits nothing.
            tally = self._tally(OTHER)
        elif module.startswith(_OWN) and module not in _CARRIERS and name[0] not in "_<":
            # What begins with an underscore, or is a comprehension, works for one that has a name.
            tally = self._tally(f"{module.removeprefix(_OWN)}.{name}")
        else:
            self._by_code[code] = None
            return None
        self._by_code[code] = tally
        return tally

    def _tally(self, name: str) -> Tally:
        return self._metrics.tally(name, self._engine)
