"""What may be given with a pipeline, and how what is wrong is named."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from fleetwright.manifest import ManifestError
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.packaging.building.tarballs import MAX_EPOCH
from controlplane.packaging.given import DEFAULT_EPOCH, Given, read_given

DEB = {"maintainer": "Ops <ops@example.org>", "description": "x"}


def test_nothing_gives_nothing() -> None:
    assert read_given("") == Given()
    assert read_given("").epoch == DEFAULT_EPOCH
    assert read_given("{}").text("name") == ""


def test_fields_of_the_manifest_and_options_are_told_apart() -> None:
    found = read_given(json.dumps({"name": "x", "version": "2", "deb": DEB, "source_date_epoch": 7}))
    assert found == Given({"name": "x", "version": "2"}, DEB, 7)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"files": []}, "files"),
        ({"type": "deb"}, "type"),
        ({"name": ""}, "name"),
        ({"disk_bytes": -1}, "disk_bytes"),
        ({"schema": "other"}, "schema"),
        ({"deb": []}, "deb"),
        ({"deb": {"maintainer": "x"}}, "deb.description"),
        ({"deb": {**DEB, "scripts": "rm"}}, "deb.scripts"),
        ({"source_date_epoch": True}, "source_date_epoch"),
        ({"source_date_epoch": "7"}, "source_date_epoch"),
        ({"source_date_epoch": MAX_EPOCH + 1}, "source_date_epoch"),
    ],
)
def test_what_is_wrong_is_named(document: dict[str, Any], field: str) -> None:
    with pytest.raises(ManifestError) as caught:
        read_given(json.dumps(document))
    assert caught.value.field == field


@pytest.mark.parametrize("text", ["[]", "x", "{", '{"name": "a", "name": "b"}', "1e9", "[" * 100_000])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ManifestError):
        read_given(text)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_no_text_raises_anything_else(text: str) -> None:
    with suppress(ManifestError):
        read_given(text)
