"""Which fields, operators and values a schema accepts, and what each value becomes."""

from __future__ import annotations

import pytest

from controlplane.filtering import FilterError, FilterSchema, LabelsField, TextField, read
from controlplane.filtering.bound import (
    BoundComparison,
    BoundEverything,
    BoundFilter,
    BoundMatch,
    BoundNot,
    BoundOr,
    BoundPresence,
    FieldTarget,
    LabelTarget,
    Place,
)
from controlplane.filtering.tree import Operator
from tests.unit.filtering.strategies import SCHEMA


def target(name: str) -> FieldTarget:
    return FieldTarget(name, SCHEMA.fields[name])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("hostname = Web-1", "Web-1"),
        ("hostname = null", "null"),
        (r'hostname = "\*"', "*"),
        ("os.family = linux", "linux"),
        ("priority = -5", -5),
        ('priority = "5"', 5),
        ("load = 2.5e-1", 0.25),
        ("clone = true", True),
        ("seen_time = 1970-01-01T00:00:01Z", 1_000_000),
        ('seen_time = "1970-01-01T02:00:00.000001+02:00"', 1),
        ("seen_time = 1970-01-01t00:00:00.123456000z", 123_456),
        ("seen_time = 1969-12-31T23:59:59.5Z", -500_000),
        ("seen_time = 0001-01-01T00:00:00+23:59", -62_135_683_140_000_000),
        ("seen_time = 9999-12-31T23:59:59-23:59", 253_402_387_139_000_000),
        ("interval = 20s", 20_000_000),
        ("interval = 1.2s", 1_200_000),
        ("interval = -0.000001s", -1),
        ("interval = 1.5h", 5_400_000_000),
        ("interval = 250ms", 250_000),
        ("presence = ONLINE", "on"),
        ("presence = PRESENCE_STALE", "st"),
        ("presence:ONLINE", "on"),
    ],
)
def test_a_value_gets_the_type_of_its_field(text: str, value: object) -> None:
    bound = read(text, SCHEMA)
    assert isinstance(bound, BoundComparison)
    assert bound.operator is Operator.EQUAL
    assert (type(bound.value), bound.value) == (type(value), value)


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("*", BoundEverything()),
        ("", BoundEverything()),
        ("hostname = web*", BoundMatch(target("hostname"), Place.START, "web")),
        ('hostname = "*.example"', BoundMatch(target("hostname"), Place.END, ".example")),
        ("hostname:*web*", BoundMatch(target("hostname"), Place.ANYWHERE, "web")),
        ("hostname != web*", BoundNot(BoundMatch(target("hostname"), Place.START, "web"))),
        ("hostname:*", BoundPresence(target("hostname"))),
        ("hostname = *", BoundMatch(target("hostname"), Place.ANYWHERE, "")),
        ("labels:*", BoundPresence(target("labels"))),
        ("labels:env", BoundPresence(LabelTarget("labels", "env"))),
        ("labels.env:*", BoundPresence(LabelTarget("labels", "env"))),
        (
            "labels.app.kubernetes.io/name:web",
            BoundComparison(LabelTarget("labels", "app.kubernetes.io/name"), Operator.EQUAL, "web"),
        ),
        (
            'labels."weird key" < b',
            BoundComparison(LabelTarget("labels", "weird key"), Operator.LESS, "b"),
        ),
        (
            "web",
            BoundOr(
                (
                    BoundMatch(target("agent_id"), Place.ANYWHERE, "web"),
                    BoundMatch(target("hostname"), Place.ANYWHERE, "web"),
                )
            ),
        ),
    ],
)
def test_a_filter_binds_to(text: str, bound: BoundFilter) -> None:
    assert read(text, SCHEMA) == bound


@pytest.mark.parametrize(
    ("text", "position", "remedy"),
    [
        ("hostnam = a", 0, "did you mean hostname?"),
        ("a = 1 AND zzz = 2", 0, "use one of agent_id, "),
        ("hostname.x = a", 9, "no fields of its own"),
        ("host* = a", 0, "wildcards stand in values"),
        ("priority = high", 11, "no whole number"),
        ("priority = 1.5", 11, "no whole number"),
        ("priority = 9223372036854775808", 11, "beyond 64 bits"),
        ("load = 1e999", 7, "no number"),
        ("load = nan", 7, "no number"),
        ("clone = yes", 8, "write true or false"),
        ("clone > true", 6, "has no order"),
        ("presence >= ONLINE", 9, "has no order"),
        ("presence = ONLIN", 11, "did you mean ONLINE?"),
        ("presence = online", 11, "did you mean ONLINE?"),
        ("presence = ON*", 11, "no value of presence"),
        ("seen_time > 2030-01-01", 12, "RFC 3339"),
        ("seen_time > 2030-02-30T00:00:00Z", 12, "calendar"),
        ("seen_time > 2030-01-01T00:00:00+24:00", 12, "calendar"),
        ("seen_time > 2030-06-30T23:59:60Z", 12, "calendar"),
        ("seen_time > 0000-01-01T00:00:00Z", 12, "calendar"),
        ("seen_time > 2030-01-01T00:00:00.1234567Z", 12, "six decimals"),
        ("interval > 20", 11, "20s"),
        ("interval > 0.0000001s", 11, "finer"),
        ("interval > 999999999999d", 11, "64 bits"),
        ("labels = env", 7, "compare one label"),
        ("labels:e*", 7, "named whole"),
        ("hostname = a*b", 11, "either end"),
        ("hostname < a*", 11, "do not work with <"),
        ("NOT clone", 4, "clone is a field"),
        ("labels.env", 0, "labels is a field"),
    ],
)
def test_what_does_not_fit_the_schema_is_refused_where_it_stands(
    text: str, position: int, remedy: str
) -> None:
    with pytest.raises(FilterError) as refused:
        read(text, SCHEMA)
    assert refused.value.position == position
    assert remedy in refused.value.description


def test_a_word_is_refused_where_nothing_is_searched() -> None:
    with pytest.raises(FilterError, match="fields are kind"):
        read("web", FilterSchema({"kind": TextField()}))


def test_an_error_names_the_field_of_the_request() -> None:
    with pytest.raises(FilterError, match=r"^selector, character 0: unknown field 'x'"):
        read("x = 1", SCHEMA, field="selector")


def test_an_error_shows_only_the_beginning_of_a_long_text() -> None:
    with pytest.raises(FilterError) as refused:
        read("priority = " + "x" * 4000, SCHEMA)
    assert len(refused.value.message) < 200


def test_a_schema_searches_text_only() -> None:
    with pytest.raises(ValueError, match="priority"):
        FilterSchema(SCHEMA.fields, searched=("priority",))


def test_a_schema_has_one_map_of_labels() -> None:
    with pytest.raises(ValueError, match="at most one"):
        FilterSchema({"labels": LabelsField(), "notes": LabelsField()})
