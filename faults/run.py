"""Running faults one after the other, each in a world of its own."""

from __future__ import annotations

import asyncio
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from faults.faults import Fault, Sizes
from faults.report import Row
from faults.world import FaultFailed, FaultSkipped, world

ROW_SECONDS = 400.0
"""No row takes longer; one that does has failed, and its world is ended."""


async def run(fault: Fault, sizes: Sizes, say: Callable[[str], None]) -> Row:
    """Run one fault in a folder of its own and return what was counted; never raises for what went wrong."""
    row = Row(fault.name, fault.what)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fleetwright-faults-") as folder:
        try:
            async with asyncio.timeout(ROW_SECONDS), world(Path(folder), row, say) as broken:
                await fault.strike(broken, sizes)
                say("counting")
                await broken.finish()
        except FaultSkipped as skipped:
            row.skipped = str(skipped)
        except FaultFailed as error:
            row.problems.append(str(error))
        except Exception:  # noqa: BLE001 - whatever a broken product does to its row, the other rows are run
            row.problems.append(traceback.format_exc())
    row.seconds = time.monotonic() - began
    return row
