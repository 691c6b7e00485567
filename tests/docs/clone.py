"""A work tree that looks like a fresh clone with its environment made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable
from pathlib import Path

from tests.docs.blocks import ROOT

# What was fetched once and lies beside the clone: there is no way to a registry from within a document.
_KEPT = ("tools", "clients")
_NOT_CLONED = shutil.ignore_patterns(
    ".venv", ".cache", ".git", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis"
)


def make_clone(folder: Path) -> Path:
    """Copy what is tracked, or would be, as it is now; link the environment that runs the tests."""
    clone = folder / "fleetwright"
    if (ROOT / ".git").exists() and shutil.which("git"):
        _clone(clone)
    else:
        shutil.copytree(ROOT, clone, ignore=_NOT_CLONED)
    _make_environment(clone)
    (clone / ".cache").mkdir()
    for kept in _KEPT:
        if (ROOT / ".cache" / kept).exists():
            (clone / ".cache" / kept).symlink_to(ROOT / ".cache" / kept)
    return clone


def missing(needs: Iterable[str], folder: Path = ROOT) -> list[str]:
    """Return what is neither a program that can be found from a work tree nor a path in it."""
    programs = [folder / ".cache/tools/bin", folder / ".venv/bin", *os.environ["PATH"].split(os.pathsep)]
    path = os.pathsep.join(map(str, programs))
    return [need for need in needs if not (shutil.which(need, path=path) or (folder / need).exists())]


def variables(home: Path) -> dict[str, str]:
    """Return the environment of a newcomer: nothing of the caller's but where programs are."""
    home.mkdir(exist_ok=True)
    own = str(Path(sys.prefix) / "bin")
    path = [entry for entry in os.environ["PATH"].split(os.pathsep) if entry != own]
    return {"PATH": os.pathsep.join(path), "HOME": str(home), "LANG": "C.UTF-8", "USER": "newcomer"}


def _git(*arguments: str, folder: Path) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def _clone(clone: Path) -> None:
    _git("clone", "--quiet", "--shared", "--no-checkout", str(ROOT), str(clone), folder=ROOT)
    for name in _git("ls-files", "-z", "-co", "--exclude-standard", folder=ROOT).split("\0"):
        source = ROOT / name
        if name and source.is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, clone / name)
    _git("reset", "--quiet", folder=clone)


def _make_environment(clone: Path) -> None:
    """Make ``.venv``: the programs and libraries of this one, the code of the clone."""
    environment = clone / ".venv"
    venv.create(environment, with_pip=False, symlinks=True)
    programs = environment / "bin"
    shebang = f"#!{sys.prefix}/bin/python"
    for source in (Path(sys.prefix) / "bin").iterdir():
        target = programs / source.name
        if target.exists() or not source.is_file():
            continue
        with source.open("rb") as file:
            is_script = file.read(len(shebang)) == shebang.encode()
        if is_script:
            target.write_text(source.read_text().replace(f"{sys.prefix}/bin", str(programs), 1))
            target.chmod(0o755)
        else:
            target.symlink_to(source)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    libraries = Path("lib") / version / "site-packages"
    # Files named .pth in a folder that is named here are not read: the project installed there is not found.
    (environment / libraries / "clone.pth").write_text(
        f"{clone}\n{clone}/proto/python\n{Path(sys.prefix) / libraries}\n"
    )
    (environment / ".made-in").write_text(f"{clone}\n")
    command = [str(clone / "scripts/environment"), "dev", ".venv", "--stamp"]
    stamp = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (environment / ".installed-dev").write_text(stamp)
