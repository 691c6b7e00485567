"""Asking ``fleetwright doctor`` and reading its answer."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from controlplane.cli.doctor.command import app

PORTS = ("AGENTS_PORT", "ADMIN_PORT", "ENROLLMENT_PORT", "HEALTH_PORT")


@dataclass(frozen=True)
class Answer:
    """What a doctor said: (check, level, message) of each line."""

    status: int
    lines: list[tuple[str, str, str]]

    @classmethod
    def read(cls, status: int, output: str) -> Answer:
        checks = json.loads(output)["checks"]
        return cls(status, [(line["check"], line["level"], line["message"]) for line in checks])

    def of(self, check: str) -> list[tuple[str, str]]:
        return [(level, message) for name, level, message in self.lines if name == check]

    def one(self, check: str) -> tuple[str, str]:
        [line] = self.of(check)
        return line

    def about(self, text: str) -> tuple[str, str]:
        """Return level and message of the one line that names ``text`` and is not OK."""
        [line] = [(level, message) for _, level, message in self.lines if text in message and level != "OK"]
        return line

    @property
    def failed(self) -> list[str]:
        return [message for _, level, message in self.lines if level == "FAIL"]


class Doctor:
    """The command in this process; a defect of it fails the test with its traceback."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        self._environment = monkeypatch
        for name in os.environ:
            if name.startswith("FLEETWRIGHT_"):
                monkeypatch.delenv(name)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
        monkeypatch.chdir(home)
        self.set(**{name.lower(): 0 for name in PORTS}, max_agents=100)

    def set(self, **settings: object) -> None:
        for name, value in settings.items():
            self._environment.setenv(f"FLEETWRIGHT_{name.upper()}", str(value))

    def ask(self, *arguments: object) -> Answer:
        told = self.words("-o", "json", *arguments)
        return Answer.read(*told)

    def words(self, *arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["doctor", *map(str, arguments)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout
