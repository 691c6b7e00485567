"""The agent's program against the real server, over the lives of several certificates."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.soak import soak


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_two_renewals_leave_no_gap_in_presence(tmp_path: Path) -> None:
    seen = await soak(tmp_path, certificate_life="1m", renewals=2, seconds=110)
    assert (seen.renewals, seen.gaps) == (2, [])
