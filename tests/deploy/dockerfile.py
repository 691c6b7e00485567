"""Reads a Dockerfile, and runs its steps in a plain folder: for machines without a container engine.

A stage's root is a folder. Absolute paths in its steps lie below that folder, but for those of the system
(``SYSTEM``), which stand for the base image: its ``python`` is the interpreter of the tests. While a stage is
made, its root is at one and the same place; so what is copied from another stage finds itself where it was
built, as it would in an image. Commands that need a container (``CONTAINER_ONLY``) are left out and listed.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SYSTEM = ("bin", "dev", "etc", "lib", "lib64", "proc", "sbin", "tmp", "usr")
CONTAINER_ONLY = ("apt-get", "groupadd", "useradd", "install", "chown")
INSTRUCTIONS = frozenset(
    {
        *("ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "RUN"),
        *("STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
    }
)
# How this machine reaches its package index is no part of the image.
_PASSED = re.compile(r"(PIP|UV)_.*|.*_(proxy|PROXY)|.*_CERT(_FILE|_DIR)?|.*_CA_BUNDLE|LANG|LC_.*")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True)
class Step:
    """One instruction: its name, its options by name, and what follows them."""

    name: str
    options: Mapping[str, str]
    text: str

    @property
    def words(self) -> list[str]:
        """The words of the exec form or of the plain one."""
        if self.text.startswith("["):
            return [str(word) for word in json.loads(self.text)]
        return shlex.split(self.text)


@dataclass(frozen=True)
class Stage:
    """A part of a Dockerfile from one FROM to the next."""

    name: str
    base: str
    steps: Sequence[Step]

    def last(self, name: str) -> Step | None:
        """Return the last step of a kind."""
        return next((step for step in reversed(self.steps) if step.name == name), None)


@dataclass(frozen=True)
class Dockerfile:
    """Its stages in order, and the arguments before the first of them."""

    arguments: Mapping[str, str]
    stages: Sequence[Stage]

    def stage(self, name: str) -> Stage:
        """Return a stage by its name."""
        return next(stage for stage in self.stages if stage.name == name)

    def chain(self, name: str) -> list[Stage]:
        """Return a stage and those that it is built on, the first one first."""
        stage = self.stage(name)
        below = any(stage.base == other.name for other in self.stages)
        return [*(self.chain(stage.base) if below else []), stage]

    def setting(self, name: str, kind: str) -> Step | None:
        """Return the step of a kind that holds for an image of the stage ``name``."""
        return next((step for stage in reversed(self.chain(name)) if (step := stage.last(kind))), None)


def _instructions(text: str) -> Iterator[Step]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if not line.strip():
            continue
        name, _, rest = line.strip().partition(" ")
        if name not in INSTRUCTIONS:
            raise ValueError(f"instruction {name!r} is not known here")
        options = {}
        while option := re.match(r"--([\w-]+)=(\S+)\s+", rest := rest.strip()):
            options[option[1]] = option[2]
            rest = rest[option.end() :]
        yield Step(name, options, rest)


def parse(text: str) -> Dockerfile:
    """Read a Dockerfile. Raises ``ValueError`` for an instruction that is not known."""
    arguments: dict[str, str] = {}
    stages: list[tuple[str, str, list[Step]]] = []
    for step in _instructions(text):
        if step.name == "FROM":
            base, _, name = step.text.partition(" AS ")
            stages.append((name or str(len(stages)), expand(base, arguments), []))
        elif stages:
            stages[-1][2].append(step)
        else:
            key, _, value = step.text.partition("=")
            arguments[key] = value
    return Dockerfile(arguments, [Stage(*stage) for stage in stages])


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Put values in the place of ``$NAME`` and ``${NAME}``; an unknown one is empty."""
    return _VARIABLE.sub(lambda found: variables.get(found[1] or found[2], ""), text)


class Ignored:
    """What a .dockerignore leaves out: of the lines that match a path or a folder above it, the last one."""

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.splitlines()]
        rules = [line for line in lines if line and not line.startswith("#")]
        self._rules = [(rule.lstrip("!"), self._pattern(rule.lstrip("!")), rule[0] != "!") for rule in rules]

    def __call__(self, path: str) -> bool:
        """Return whether the file ``path`` is left out."""
        parts = path.split("/")
        above = ["/".join(parts[: number + 1]) for number in range(len(parts))]
        matching = [out for _, pattern, out in self._rules if any(map(pattern.fullmatch, above))]
        return bool(matching) and matching[-1]

    def may_hold(self, folder: str) -> bool:
        """Return whether something below ``folder`` may be let in."""
        wanted = [rule for rule, _, out in self._rules if not out]
        return any(f"{rule}/".startswith(f"{folder}/") or folder.startswith(f"{rule}/") for rule in wanted)

    @staticmethod
    def _pattern(rule: str) -> re.Pattern[str]:
        text = re.escape(rule.strip("/")).replace(r"\*\*/", "(?:.*/)?").replace(r"\*\*", ".*")
        return re.compile(text.replace(r"\*", "[^/]*").replace(r"\?", "[^/]"))


def context_files(context: Path) -> list[str]:
    """Return the files that a build gets of the folder ``context``."""
    ignored = Ignored((context / ".dockerignore").read_text())
    found = []
    for folder, below, files in os.walk(context):
        here = Path(folder).relative_to(context).as_posix().removeprefix(".")
        prefix = f"{here}/" if here else ""
        below[:] = [name for name in below if ignored.may_hold(f"{prefix}{name}")]
        found += [f"{prefix}{name}" for name in files if not ignored(f"{prefix}{name}")]
    return sorted(found)


@dataclass
class Image:
    """What a built stage is, as far as a folder can be it."""

    root: Path
    env: dict[str, str]
    workdir: str = "/"
    skipped: list[str] = field(default_factory=list)


class Runner:
    """Builds stages of a Dockerfile below the folder ``work``."""

    def __init__(self, dockerfile: Dockerfile, context: Path, work: Path) -> None:
        self._dockerfile = dockerfile
        self._context = context
        self._work = work
        self.root = work / "root"
        shims = work / "base"
        shims.mkdir(parents=True)
        for name in ("python", "python3"):
            (shims / name).symlink_to(sys._base_executable)  # type: ignore[attr-defined]  # not in typeshed
        self._path = f"{shims}:/usr/bin:/bin"

    def build(self, name: str) -> Image:
        """Build a stage and all that it needs; its root is at ``root`` until the next build."""
        parked: dict[str, Path] = {}
        image = Image(self.root, {"PATH": self._path})
        for stage in self._wanted(name):
            if all(stage.base != other.name for other in self._dockerfile.stages):
                image = Image(self.root, {"PATH": self._path}, skipped=image.skipped)
                self._park(parked)
            self._current = stage.name
            arguments: dict[str, str] = {}
            for step in stage.steps:
                self._run(image, step, arguments, parked)
        return image

    def _wanted(self, name: str) -> list[Stage]:
        chain = self._dockerfile.chain(name)
        sources = [step.options["from"] for stage in chain for step in stage.steps if "from" in step.options]
        before = [stage for source in dict.fromkeys(sources) for stage in self._wanted(source)]
        return [*before, *chain]

    def _park(self, parked: dict[str, Path]) -> None:
        """Move what was built aside under its stage's name, and begin an empty root."""
        if self.root.exists():
            parked[self._current] = self._work / "stages" / self._current
            parked[self._current].parent.mkdir(exist_ok=True)
            shutil.rmtree(parked[self._current], ignore_errors=True)
            self.root.rename(parked[self._current])
        self.root.mkdir()

    def _run(self, image: Image, step: Step, arguments: dict[str, str], parked: Mapping[str, Path]) -> None:
        if step.name == "ARG":
            key, _, value = step.text.partition("=")
            arguments[key] = value
        elif step.name == "ENV":
            for word in shlex.split(step.text):
                key, _, value = word.partition("=")
                image.env[key] = self.below(expand(value, {**image.env, **arguments}))
        elif step.name in {"WORKDIR", "VOLUME"}:
            self.at(step.text).mkdir(parents=True, exist_ok=True)
            if step.name == "WORKDIR":
                image.workdir = step.text
        elif step.name == "COPY":
            self._copy(image, step, parked)
        elif step.name == "RUN":
            self._shell(image, step.text, arguments)

    def _copy(self, image: Image, step: Step, parked: Mapping[str, Path]) -> None:
        *sources, target = step.words
        into = self.at(os.path.join(image.workdir, target))
        for source in sources:
            if "from" in step.options:
                shutil.copytree(parked[step.options["from"]] / source.lstrip("/"), into, symlinks=True)
                continue
            for name in context_files(self._context):
                if source == "." or name == source or name.startswith(f"{source}/"):
                    kept = name if source == "." else Path(name).relative_to(Path(source).parent)
                    (into / kept).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(self._context / name, into / kept)

    def _shell(self, image: Image, text: str, arguments: Mapping[str, str]) -> None:
        wanted = []
        for command in re.split(r"\s+&&\s+", text):
            program = next(word for word in shlex.split(command) if "=" not in word)
            if program in CONTAINER_ONLY:
                image.skipped.append(" ".join(command.split()))
            else:
                wanted.append(self.below(command))
        if wanted:
            passed = {name: value for name, value in os.environ.items() if _PASSED.fullmatch(name)}
            # The paths of arguments are in the command's own words.
            env = {**passed, "HOME": str(self._work), **image.env, **arguments}
            subprocess.run(
                ["sh", "-ec", " && ".join(wanted)], cwd=self.at(image.workdir), env=env, check=True
            )

    def at(self, path: str) -> Path:
        """Return where an absolute path of an image is."""
        return self.root / path.lstrip("/")

    def below(self, text: str) -> str:
        """Return ``text`` with each absolute path that is none of the system's below the root."""
        pattern = rf"(?<![\w./*$-])/(?!(?:{'|'.join(SYSTEM)})\b)(?=\w)"
        return re.sub(pattern, f"{self.root}/", text)

    def command(self, image: Image, words: Sequence[str]) -> list[str]:
        """Return a command of the image as it is run here."""
        found = shutil.which(words[0], path=image.env["PATH"])
        if found is None:
            raise FileNotFoundError(f"{words[0]} is not in the image")
        return [found, *(self.below(word) for word in words[1:])]
