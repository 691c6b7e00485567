"""Which ecosystem an export is of, by its records: the name of its folder does not travel with it.

``python -m controlplane.packaging.advisories.recognising PATH`` is the process that reads them: nobody
vouches for the bytes, so they are not opened where keys and the database are, see ``reading``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from controlplane.packaging.advisories import exports, names, osv, reading
from controlplane.packaging.advisories.exports import Export, ExportError
from controlplane.packaging.advisories.versions import is_known

SAMPLE = 64
"""Records that are looked at, spread over the export. One may be of several ecosystems: all have to agree."""

PATIENCE = timedelta(minutes=1)
"""How long the process may take: the directory of the largest export is read in seconds."""

_ROOT = Path(__file__).parents[3]


async def ecosystem_of(path: Path) -> str:
    """Return the ecosystem of a zip of records; its path is absolute. Raises ``ExportError``."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-c",
        f"import sys; sys.path.insert(0, {str(_ROOT)!r}); "
        "from controlplane.packaging.advisories.recognising import main; main()",
        str(path),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PYTHONIOENCODING": "utf-8"},
    )
    try:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            said, _ = await process.communicate()
    except TimeoutError:
        raise ExportError(
            f"{path}: its directory was not read within {PATIENCE.total_seconds():g} s; get the export anew"
        ) from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.communicate()
    return _understood(path, said, process.returncode)


def _understood(path: Path, said: bytes, status: int | None) -> str:
    try:
        told = json.loads(said)
    except ValueError:
        raise ExportError(f"{path}: the process that reads it ended early (status {status})") from None
    if "error" in told:
        raise ExportError(str(told["error"]))
    return str(told["ecosystem"])


def recognised(path: Path) -> str:
    """Return the one ecosystem that all of a sample of records speak of. Raises ``ExportError``."""
    export = Export("", path)
    members = exports.members(export)
    if not members:
        raise ExportError(f"{path}: has no records (*.json); give a zip of OSV records")
    step = max(1, len(members) // SAMPLE)
    spoken_of: list[set[str]] = []
    for name, content in exports.read(export, members[::step][:SAMPLE]):
        try:
            record = osv.parse(content)
        except osv.RecordError as error:
            raise ExportError(f"{path}: {name}: {error}") from None
        found = {names.base(one.ecosystem) for one in record.affected}
        if known := {one for one in found if is_known(one)}:
            spoken_of.append(known)
    return _common(path, spoken_of)


def _common(path: Path, spoken_of: Iterable[set[str]]) -> str:
    sets = list(spoken_of)
    common = set.intersection(*sets) if sets else set()
    if len(common) != 1:
        what = f"speak of {', '.join(sorted(common))} alike" if common else "have no ecosystem in common"
        raise ExportError(f"{path}: its records {what}; say which ecosystem the export is of")
    return common.pop()


def main() -> None:
    """Read the path that the argument names, and say the ecosystem as JSON."""
    reading.bound_memory()
    path = sys.argv[1]
    try:
        said = {"ecosystem": recognised(Path(path))}
    except ExportError as error:
        said = {"error": str(error)}
    except MemoryError:
        said = {"error": f"{path}: takes more than {reading.MAX_MEMORY} bytes to read"}
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
