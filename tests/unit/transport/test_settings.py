from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from controlplane.settings import Settings, explain, unknown_variables


def refused(**values: object) -> str:
    with pytest.raises(ValidationError) as error:
        Settings(**values)  # type: ignore[arg-type] # that is the point
    return explain(error.value)


def test_defaults_are_those_of_the_design() -> None:
    settings = Settings()
    ports = (settings.agents_port, settings.admin_port, settings.enrollment_port, settings.health_port)
    assert ports == (7443, 7444, 7445, 7446)
    assert settings.agent_certificate_life == timedelta(hours=24)
    assert settings.health_bind_host == "127.0.0.1"
    assert settings.heartbeat_interval == timedelta(seconds=10)


def test_environment_is_read_and_the_command_line_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETWRIGHT_MAX_AGENTS", "7")
    monkeypatch.setenv("FLEETWRIGHT_DATA_DIR", "/srv/fleet")
    monkeypatch.setenv("FLEETWRIGHT_HOSTS", "fleet.example, 192.0.2.1")
    monkeypatch.setenv("FLEETWRIGHT_LEASE_TIME", "PT45S")
    monkeypatch.setenv("FLEETWRIGHT_DRAIN_WINDOW", "3")
    settings = Settings(max_agents=9)
    assert settings.max_agents == 9
    assert settings.data_dir == Path("/srv/fleet")
    assert settings.hosts == ("fleet.example", "192.0.2.1")
    assert (settings.lease_time, settings.drain_window) == (timedelta(seconds=45), timedelta(seconds=3))


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().max_agents = 5


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90", timedelta(seconds=90)),
        ("1.5", timedelta(seconds=1.5)),
        ("250ms", timedelta(milliseconds=250)),
        ("2m", timedelta(minutes=2)),
        ("1d", timedelta(days=1)),
        ("PT1M30S", timedelta(seconds=90)),
    ],
)
def test_durations_are_written_as_people_write_them(text: str, duration: timedelta) -> None:
    assert Settings(handshake_timeout=10, telemetry_interval=text).telemetry_interval == duration  # type: ignore[arg-type] # as the environment gives it


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lease_time", "soon"),
        ("max_agents", 0),
        ("agents_port", 70_000),
        ("trust_domain", "Not A Domain"),
        ("agent_certificate_life", timedelta(seconds=1)),
        ("log_level", "loud"),
    ],
)
def test_refusal_names_the_variable_and_the_value(name: str, value: object) -> None:
    text = refused(**{name: value})
    assert text.startswith(f"FLEETWRIGHT_{name.upper()}: ")
    assert repr(value) in text


def test_unknown_setting_is_refused() -> None:
    assert "FLEETWRIGHT_COLOUR" in refused(colour="blue")


def test_presence_limits_must_grow() -> None:
    assert "must grow in this order" in refused(stale_after=timedelta(seconds=5))


def test_two_listeners_cannot_share_a_port() -> None:
    assert "a port each" in refused(admin_port=7443)
    assert Settings(agents_port=0, admin_port=0).admin_port == 0


def test_every_setting_is_described() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_a_variable_that_is_no_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETWRIGHT_AGENT_PORT", "1")
    monkeypatch.setenv("FLEETWRIGHT_AGENTS_PORT", "1")
    assert "FLEETWRIGHT_AGENT_PORT" in unknown_variables()
    assert "FLEETWRIGHT_AGENTS_PORT" not in unknown_variables()
