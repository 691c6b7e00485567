"""The part of the demo that makes packages of artefacts and brings one of them to agents, by the commands."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from demo import artefacts
from demo.artefacts import Artefacts
from demo.processes import DemoFailed, Programs, tool

_SECOND = "operator-second"


@dataclass
class Found:
    """What came of it: figures by name for people, and what is not as it must be."""

    figures: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    tasks: dict[str, str] = field(default_factory=dict)
    """Tasks that install, with the agent of each."""


def make_keys(programs: Programs, site: Path, offline: Path) -> None:
    """Make the keys by which packages are released; agents get the root of them as they enrol."""
    command = [tool("fleetwright"), "trust", "init", "--offline", str(offline), "--data-dir", str(site)]
    command += ["--deb-signer", "Demo <demo@example.org>"]
    programs.run("fleetwright trust init", command)


def allow_installs(state: Path) -> Path:
    """Let the policy of the agent on this host take packages; returns the folder that they go to."""
    policy, prefix = state / "policy.toml", state / "packages"
    text = policy.read_text()
    kinds = 'task_kinds = ["inventory", "logs", "script", "echo"]'
    if kinds not in text:
        raise DemoFailed(f"{policy} is not the default policy")
    section = f'\n[install]\nchannels = ["stable"]\nprefix = "{prefix}"\n'
    policy.write_text(text.replace(kinds, kinds.replace("]", ', "install"]')) + section)
    return prefix


class Packages:
    """Three artefacts through the factory, and one package to agents."""

    def __init__(
        self, programs: Programs, folder: Path, admin_address: str, say: Callable[[str], None]
    ) -> None:
        self._programs = programs
        self._folder = folder
        self._say = say
        self._identity = folder / "site" / "identities" / "operator-admin"
        self._server = admin_address
        self.found = Found()

    def run(self, selector: str, agents: int, prefix: Path) -> Found:
        """Make the packages, decide, deploy to so many ``agents``; ``prefix`` is that of the real one."""
        made = artefacts.make(self._folder / "artefacts", datetime.now(UTC))
        self._call("advisories", "import", *map(str, made.advisories))
        self._refused(made)
        self._excepted(made)
        if made.binary is None:
            self.found.figures["package of a binary"] = "left out: no program for this processor"
            return self.found
        package = self._passed(made.binary)
        self._deploy(package, selector, agents, prefix)
        return self.found

    # --- the three

    def _refused(self, made: Artefacts) -> None:
        pipeline = self._build(made.wheel)
        package = self._package(pipeline)
        self._show("wheel", package)
        self._expect(pipeline["state"] == "PIPELINE_STATE_REFUSED", f"the wheel is {pipeline['state']}")
        self._expect(
            any(artefacts.WHEEL_CVE in reason for reason in package["decisionReasons"]),
            f"the wheel's reasons do not name {artefacts.WHEEL_CVE}",
        )

    def _excepted(self, made: Artefacts) -> None:
        """Refused first; then one operator asks for an exception, and another one approves it."""
        pipeline = self._build(made.deb)
        name = self._package(pipeline)["name"]
        signed = {one["kind"]: one for one in pipeline["signatures"]}["openpgp"]
        words = f"{signed['state']} {signed['verifiedBy']}".strip()
        self.found.figures["OpenPGP signature of the deb"] = words
        self._expect(signed["state"] in ("VERIFIED", "SIGNED"), f"the .deb's signature is {words}")
        asked = self._call(
            *("packages", "exceptions", "create", name, artefacts.DEB_CVE),
            *("--for", "30d", "--reason", "the demo never runs it"),
        )
        self._call(
            "identities", "issue", "operator", "second", "--out", str(self._folder / _SECOND), parsed=False
        )
        try:
            self._call("packages", "exceptions", "approve", asked["name"])
            self._expect(False, "who asked for the exception could approve it")
        except DemoFailed:
            pass
        second = self._folder / _SECOND
        self._call("packages", "exceptions", "approve", asked["name"], identity=second)
        package = self._call("packages", "show", name)
        self._show("deb", package)
        self._expect(package["decision"].endswith("EXCEPTION"), f"the .deb is {package['decision']}")

    def _passed(self, binary: Path) -> dict[str, Any]:
        manifest = self._folder / "manifest.json"
        manifest.write_text('{"version": "1.0"}')
        pipeline = self._build(binary, "--manifest", str(manifest))
        package = self._package(pipeline)
        self._show("binary", package)
        self._expect(pipeline["state"] == "PIPELINE_STATE_PASSED", f"the binary is {pipeline['state']}")
        bundle = self._folder / "bundle.zip"
        self._call("packages", "export", package["name"], "--out", str(bundle), parsed=False)
        root = self._folder / "offline" / "root.json"
        report = self._call("packages", "verify", str(bundle), "--root", str(root), server=False)
        self._expect(report["ok"], f"the bundle does not verify: {report}")
        self.found.figures["bundle verified offline"] = ", ".join(check["name"] for check in report["checks"])
        return package

    def _build(self, artefact: Path, *options: str) -> dict[str, Any]:
        """Make a package and wait for its end; that policy refuses it is no failure of the command's."""
        pipeline: dict[str, Any] = self._call(
            "packages", "build", str(artefact), "--wait", *options, refused=True
        )
        return pipeline

    def _package(self, pipeline: dict[str, Any]) -> dict[str, Any]:
        if not pipeline["package"]:
            raise DemoFailed(f"{pipeline['fileName']} is {pipeline['state']}: {pipeline['reason']}")
        package: dict[str, Any] = self._call("packages", "show", pipeline["package"])
        return package

    def _show(self, what: str, package: dict[str, Any]) -> None:
        decision = package["decision"].removeprefix("POLICY_DECISION_")
        reasons = "; ".join(package["decisionReasons"])
        words = f"{package['packageName']} {package['version']}: {decision}"
        self.found.figures[f"package of a {what}"] = f"{words}; {reasons}" if reasons else words
        self._say(f"  {what:<8}{words}")

    # --- deploying

    def _deploy(self, package: dict[str, Any], selector: str, agents: int, prefix: Path) -> None:
        self._say(f"  deploying to this host and {agents - 1} simulated agents")
        self._call("packages", "deploy", package["name"], "--to", selector, "--wait", refused=True)
        listed = self._call("packages", "deployments", "--package", package["name"], "--limit", "0")
        self.found.tasks = {one["task"]: one["agent"] for one in listed["deployments"]}
        states = Counter(one["status"].removeprefix("DEPLOYMENT_STATUS_") for one in listed["deployments"])
        self.found.figures["installed, each verifying it"] = dict(states)
        self._expect(states == {"INSTALLED": agents}, f"deployments stand at {dict(states)}")
        self._runs(prefix)

    def _runs(self, prefix: Path) -> None:
        program = prefix / "bin" / artefacts.BINARY
        said = subprocess.run([program], capture_output=True, check=False).stdout if program.exists() else b""
        self._expect(said == artefacts.GREETING, f"{program} is not what was packaged")
        self.found.figures["installed program said"] = said.decode(errors="replace").strip()

    # --- calls

    def _expect(self, fine: bool, problem: str) -> None:
        if not fine:
            self.found.problems.append(problem)

    def _call(
        self,
        *words: str,
        identity: Path | None = None,
        server: bool = True,
        refused: bool = False,
        parsed: bool = True,
    ) -> Any:
        """Run ``fleetwright`` with these words; returns what it printed as JSON.

        With ``refused`` the exit status says what became of it, and not whether the command could do it.
        """
        where = ["--server", self._server, "--identity", str(identity or self._identity)] if server else []
        output = ["-o", "json"] if parsed else []
        command = [tool("fleetwright"), *words, *where, *output]
        said = self._programs.run(f"fleetwright {' '.join(words[:2])}", command, also=1 if refused else 0)
        return json.loads(said) if parsed else said
