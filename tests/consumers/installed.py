"""An environment that has only the client library's wheel and what it asks for."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Environment:
    """A virtual environment of its own; nothing of the repository is on its path."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def packages(self) -> Path:
        """Where its distributions lie."""
        return next((self.folder / "lib").glob("python3.*")) / "site-packages"

    @property
    def variables(self) -> dict[str, str]:
        """The variables that its programs get: none that lead to the repository."""
        return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}

    def run(self, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run its interpreter."""
        return subprocess.run(
            [self.python, *arguments],
            cwd=cwd,
            env=self.variables,
            capture_output=True,
            text=True,
            check=False,
        )


def make(folder: Path) -> Environment:
    """Make an empty environment."""
    venv.create(folder, with_pip=False, symlinks=True)
    return Environment(folder)


def pip(environment: Environment, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Install into an environment that has no pip of its own."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(environment.python),
        "install",
        "--quiet",
        "--no-input",
    ]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)


def copy_sources(folder: Path) -> Path:
    """Copy what the wheels are made from, as a release's archive has it: without git."""
    leave = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for name in ("agent_sim", "bench", "certs", "controlplane", "demo", "proto", "requirements", "scripts"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=leave)
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, folder)
    return folder


def build(folder: Path, sources: Path = REPOSITORY, **variables: str) -> dict[str, Path]:
    """Build the wheels; return them by the name of their distribution."""
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "PYTHON": sys.executable,
        "GIT_CEILING_DIRECTORIES": str(sources.parent),
        **variables,
    }
    command = [str(sources / "scripts" / "wheels"), str(folder)]
    subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return {path.name.split("-")[0]: path for path in folder.glob("*.whl")}


def install(environment: Environment, wheel: Path, extras: Iterable[str] = ()) -> None:
    """Install a wheel, and what it requires as it lies in this environment: no index is asked."""
    done = pip(environment, "--no-index", "--no-deps", wheel)
    assert done.returncode == 0, done.stderr
    found = next(
        iter(metadata.distributions(name=wheel.name.split("-")[0], path=[str(environment.packages)]))
    )
    add(environment, *_required(found, extras))


def add(environment: Environment, *names: str) -> None:
    """Copy distributions of this environment, and what they require, into another."""
    wanted, taken = list(names), set[str]()
    while wanted:
        name = wanted.pop().lower()
        if name in taken:
            continue
        taken.add(name)
        distribution = metadata.distribution(name)
        for file in distribution.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                target = environment.packages / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(distribution.locate_file(file)), target)
        wanted.extend(_required(distribution))


def _required(distribution: metadata.Distribution, extras: Iterable[str] = ()) -> Iterator[str]:
    for text in distribution.requires or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement.name
