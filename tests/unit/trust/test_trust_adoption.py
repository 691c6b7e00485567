from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controlplane.trust.adoption import ADOPTION_FILE, Adoption, allow_adoption, load_adoption
from controlplane.trust.layout import DataFolderError

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def test_a_leave_is_for_one_life_from_the_restore_on(tmp_path: Path) -> None:
    assert load_adoption(tmp_path) is None
    written = allow_adoption(tmp_path, NOW - 3 * DAY, NOW, DAY)
    assert written == Adoption(NOW - 3 * DAY, NOW, NOW + DAY)
    assert load_adoption(tmp_path) == written
    assert (tmp_path / ADOPTION_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        json.dumps({"backup_time": 1, "restore_time": 1, "until": 1}),
        json.dumps(dict.fromkeys(("backup_time", "restore_time", "until"), "2030-01-01T12:00:00")),
    ],
)
def test_a_leave_that_cannot_be_read_lets_no_one_in(tmp_path: Path, content: str) -> None:
    (tmp_path / ADOPTION_FILE).write_text(content)
    with pytest.raises(DataFolderError, match="remove it, or restore the backup again"):
        load_adoption(tmp_path)
