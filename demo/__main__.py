"""Runs the demo: ``make demo``, or ``python -m demo --help``."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import psutil
import typer
from fleetwright.v1 import task_service_pb2, work_pb2

from demo import packages
from demo.administrator import Administrator, Tick
from demo.processes import DemoFailed, Program, Programs, log_event, tool, wait_for_file
from demo.reporting import Report, console, percentile, progress, show

PACE = 50.0
"""Tasks a second of the paced round, in which dispatch is measured without a queue of our own making."""

MOST_INSTALLED = 100
"""Simulated agents that the package is deployed to, where there are so many."""

PACKAGED = "packages"
REFERENCE = "this-host"
ONLINE = "presence = ONLINE"


class Demo:
    """One run of the demo in a scratch folder."""

    def __init__(self, folder: Path, agents: int, database_url: str = "") -> None:
        self.folder = folder
        self.agents = agents
        self.database_url = database_url
        self.programs = Programs(folder)
        self.report = Report()
        self.effects = folder / "effects"
        self.receipts = folder / "receipts"
        self.ready = folder / "fleet-ready.json"
        self.prefix = folder
        self.installs: set[str] = set()

    def run(self) -> Report:
        """Do the main job, from an empty folder to a stopped server."""
        server, ports = self._start_server()
        admin = Administrator(
            f"localhost:{ports['admin']}", self.folder / "site" / "identities" / "operator-admin"
        )
        try:
            idle = server.rss()
            fleet, agent = self._start_agents(admin, ports)
            self._judge_online(admin)
            connected_rss, connected_cpu = server.rss(), server.cpu()
            self.report.figures["server memory per agent, KB"] = round(
                (connected_rss - idle) / 1024 / (self.agents + 1), 1
            )
            tasks = self._work(admin)
            self._telemetry(admin)
            self._packages(admin, ports)
            self.report.figures["server CPU, s"] = {
                "connecting": round(connected_cpu, 1),
                "working": round(server.cpu() - connected_cpu, 1),
            }
            self._stop([fleet, agent, server])
            self._judge_tasks(tasks)
            self._judge_effects(tasks)
            self._judge_fleet(fleet)
        finally:
            admin.close()
        return self.report

    # --- starting

    def _start_server(self) -> tuple[Program, dict[str, int]]:
        database = "PostgreSQL, started for it," if self.database_url else "SQLite"
        console.print(f"[bold]1.[/] a control plane on {database} in a scratch folder")
        site = str(self.folder / "site")
        self.programs.run("fleetwright init", [tool("fleetwright"), "init", "--data-dir", site])
        packages.make_keys(self.programs, Path(site), self.folder / "offline")
        server = self.programs.start(
            "server",
            [
                *(tool("fleetwright"), "serve", "--data-dir", site, "--bind-host", "127.0.0.1"),
                *("--agents-port", "0", "--admin-port", "0"),
                *("--enrollment-port", "0", "--health-port", "0"),
                *("--max-agents", str(self.agents + 100)),
            ],
            {
                "FLEETWRIGHT_LOG_FORMAT": "json",
                "FLEETWRIGHT_TELEMETRY_INTERVAL": "15",
                "FLEETWRIGHT_DRAIN_WINDOW": "2",
                "FLEETWRIGHT_DATABASE_URL": self.database_url,
            },
        )
        serving = log_event(server, "serving")
        ports = {name: serving[name] for name in ("agents", "admin", "enrollment", "health")}
        console.print(
            f"  serving: agents {ports['agents']}, admin {ports['admin']}, enrolment "
            f"{ports['enrollment']}, health {ports['health']}"
        )
        return server, ports

    def _start_agents(self, admin: Administrator, ports: dict[str, int]) -> tuple[Program, Program]:
        console.print(
            f"[bold]2.[/] this host and {self.agents} simulated agents enrol and connect over mutual TLS"
        )
        token = self.folder / "join-token"
        token.touch(mode=0o600)
        token.write_text(admin.join_token(self.agents + 1))
        state = str(self.folder / "agent")
        enrolment, agents = f"localhost:{ports['enrollment']}", f"localhost:{ports['agents']}"
        self.programs.run(
            "fleetwright-agent enroll",
            [
                *(tool("fleetwright-agent"), "enroll", "--server", enrolment, "--token-file", str(token)),
                *("--state", state, "--agent-id", REFERENCE, "--agent-address", agents),
            ],
        )
        self.prefix = packages.allow_installs(Path(state))
        agent = self.programs.start("agent", [tool("fleetwright-agent"), "run", "--state", state])
        began = time.monotonic()
        fleet = self.programs.start(
            "fleet",
            [
                *(tool("fleetwright-sim"), "run", "--agents", str(self.agents)),
                *("--enrollment-address", enrolment, "--server-address", agents),
                *("--join-token-file", str(token), "--effects", str(self.effects)),
                *("--receipts", str(self.receipts), "--ready-file", str(self.ready)),
            ],
        )
        for what, chosen in (("enrolled", ""), ("connected", ONLINE)):
            with progress(what, self.agents + 1) as tick:
                self._wait_count(admin, chosen, [fleet, agent], tick)
        wait_for_file(self.ready, [fleet, agent], 30)
        self.report.figures["enrolled and connected in, s"] = round(time.monotonic() - began, 1)
        return fleet, agent

    def _wait_count(self, admin: Administrator, chosen: str, programs: list[Program], tick: Tick) -> None:
        seen, deadline = 0, time.monotonic() + 120
        while seen <= self.agents:
            for program in programs:
                program.check()
            if time.monotonic() > deadline:
                raise DemoFailed(f"only {seen} of {self.agents + 1} agents after 120 s")
            now = admin.count(chosen)
            tick(now - seen)
            seen = now
            time.sleep(0.25)

    def _judge_online(self, admin: Administrator) -> None:
        wanted, online = self.agents + 1, admin.count(ONLINE)
        self.report.figures["connected"] = f"{online} of {wanted}"
        self.report.expect(online == wanted, f"{online} of {wanted} agents are ONLINE")

    # --- working

    def _work(self, admin: Administrator) -> list[task_service_pb2.Task]:
        console.print(
            "[bold]3.[/] work: one task for every agent at once, then one each at "
            f"{PACE:.0f} a second; on this host also real ones"
        )
        echo = work_pb2.TaskSpec(echo=work_pb2.EchoSpec(payload=b"demo"))
        everyone = self.agents + 1
        began = time.monotonic()
        admin.create_for_all(echo)
        with progress("all at once", everyone) as tick:
            admin.wait_final(everyone, tick, 60)
        self.report.figures["burst: all agents done in, s"] = round(time.monotonic() - began, 2)
        names = admin.agent_names()
        with progress("created", everyone) as tick:
            self.paced = set(admin.create_paced(names, echo, PACE, tick))
        real = [self._script(), work_pb2.TaskSpec(inventory=work_pb2.InventorySpec(include_packages=True))]
        for spec in real:
            admin.create(f"agents/{REFERENCE}", spec)
        total = 2 * everyone + len(real)
        with progress("done", total) as tick:
            tasks = admin.wait_final(total, tick, 60)
        script = next(task for task in tasks if task.kind == "script")
        said = admin.output(script.name).decode(errors="replace").strip()
        self.report.figures["script on this host said"] = said
        return tasks

    def _script(self) -> work_pb2.TaskSpec:
        body = 'echo "script $2 on $(hostname)"; echo "$2" >> "$1"'
        arguments = [str(self.folder / "reference-effects"), "ran"]
        return work_pb2.TaskSpec(script=work_pb2.ScriptSpec(interpreter="sh", body=body, arguments=arguments))

    def _telemetry(self, admin: Administrator) -> None:
        console.print("[bold]4.[/] telemetry of every agent")
        wanted = self.agents + 1
        deadline = time.monotonic() + 45
        while True:
            by_agent = Counter(point.agent for point in admin.points())
            if len(by_agent) >= wanted or time.monotonic() > deadline:
                break
            time.sleep(1)
        self.report.figures["telemetry points"] = by_agent.total()
        self.report.figures["agents with telemetry"] = f"{len(by_agent)} of {wanted}"
        self.report.expect(len(by_agent) == wanted, f"only {len(by_agent)} of {wanted} agents sent telemetry")

    def _packages(self, admin: Administrator, ports: dict[str, int]) -> None:
        console.print("[bold]5.[/] three artefacts go through the factory, one package to agents")
        room = packages.Packages(self.programs, self.folder, f"localhost:{ports['admin']}", console.print)
        ids = [name.removeprefix("agents/") for name in admin.agent_names()]
        chosen = [REFERENCE, *[one for one in ids if one != REFERENCE][:MOST_INSTALLED]]
        admin.group(chosen, PACKAGED)
        found = room.run(f"groups:{PACKAGED}", len(chosen), self.prefix)
        self.report.figures |= found.figures
        self.report.problems += found.problems
        self.installs = {task for task, agent in found.tasks.items() if agent != f"agents/{REFERENCE}"}

    # --- ending and judging

    def _stop(self, programs: list[Program]) -> None:
        console.print("[bold]6.[/] everything stops")
        ours = [psutil.Process(program.process.pid) for program in programs]
        started = [child for process in ours for child in (process, *process.children(recursive=True))]
        for program in programs:
            code = program.stop()
            self.report.expect(code == 0, f"{program.name} ended with status {code}")
        _, left = psutil.wait_procs(started, timeout=5)
        self.report.expect(not left, f"still running: {', '.join(str(process.pid) for process in left)}")

    def _judge_tasks(self, tasks: list[task_service_pb2.Task]) -> None:
        states = Counter(
            task_service_pb2.TaskState.Name(task.state).removeprefix("TASK_STATE_") for task in tasks
        )
        self.report.figures["tasks"] = dict(states)
        self.report.expect(set(states) == {"SUCCEEDED"}, f"tasks did not all succeed: {dict(states)}")
        received: dict[str, int] = {}
        for line in self.receipts.read_text().splitlines():
            receipt = json.loads(line)
            received.setdefault(receipt["task"], receipt["time_us"])
        paced = [task for task in tasks if task.name in self.paced and task.name in received]
        dispatch = [(received[task.name] - task.create_time.ToMicroseconds()) / 1000 for task in paced]
        round_trip = [
            (task.state_time.ToMicroseconds() - task.create_time.ToMicroseconds()) / 1000 for task in paced
        ]
        for name, values in (("dispatch", dispatch), ("round trip", round_trip)):
            self.report.figures[f"{name}, ms"] = {
                "p50": round(percentile(values, 0.5), 1),
                "p99": round(percentile(values, 0.99), 1),
                "of": len(values),
            }

    def _judge_effects(self, tasks: list[task_service_pb2.Task]) -> None:
        counted = Counter(line.split()[0] for line in self.effects.read_text().splitlines())
        wanted = self.installs | {task.name for task in tasks if task.agent != f"agents/{REFERENCE}"}
        lost = wanted - counted.keys()
        doubled = [task for task, number in counted.items() if number > 1]
        unknown = counted.keys() - wanted
        script = (self.folder / "reference-effects").read_text().splitlines()
        self.report.figures["effects"] = {
            "counted by the hosts": counted.total() + len(script),
            "lost": len(lost),
            "doubled": len(doubled),
        }
        self.report.expect(not lost, f"{len(lost)} tasks without an effect: {min(lost, default='')} …")
        self.report.expect(not doubled, f"{len(doubled)} effects doubled, for example {doubled[:1]}")
        self.report.expect(not unknown, f"{len(unknown)} effects of unknown tasks")
        self.report.expect(script == ["ran"], f"the script on this host ran {len(script)} times")

    def _judge_fleet(self, fleet: Program) -> None:
        summary = json.loads(fleet.stdout.read_text())
        self.report.figures["fleet"] = summary
        committed = summary["results_acknowledged"].get("COMMITTED", 0)
        self.report.expect(
            committed == summary["effects"],
            f"{summary['effects']} effects, but {committed} results acknowledged as committed",
        )
        for what in ("stopped_early", "telemetry_points_dropped"):
            self.report.expect(not summary[what], f"the fleet says {what}: {summary[what]}")
        self.report.expect(not summary["errors_by_reason"], f"agents saw {summary['errors_by_reason']}")


@contextmanager
def database(postgres: bool) -> Iterator[str]:
    """Yield the URL of a PostgreSQL database of the demo's own, empty for SQLite."""
    if not postgres:
        yield ""
        return
    from devtools.postgres import PostgresServer  # needs what only `make dev-env` installs

    with PostgresServer() as server:
        durable = ", ".join(f"{name}={value}" for name, value in server.durability().items())
        console.print(f"PostgreSQL {server.query('SHOW server_version')[0][0]}: {durable}")
        yield server.url()


def _interrupted(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main(
    agents: Annotated[int, typer.Option(min=1, max=10_000, help="Simulated agents.")] = 1_000,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the scratch folder.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON on standard output.")
    ] = False,
    postgres: Annotated[
        bool, typer.Option("--postgres", help="On a real PostgreSQL, which is started and stopped with it.")
    ] = False,
) -> None:
    """Start a control plane, let agents enrol, work and report, print a summary, stop everything."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    folder = Path(tempfile.mkdtemp(prefix="fleetwright-demo-"))
    demo = Demo(folder, agents)
    problem, interrupted = "", False
    try:
        with database(postgres) as demo.database_url:
            report = demo.run()
        show(report)
        if as_json:
            print(json.dumps({**report.figures, "problems": report.problems}))
        problem = "; ".join(report.problems)
    except DemoFailed as error:
        problem = str(error)
        console.print(f"error: {problem}", markup=False)
    except KeyboardInterrupt:
        problem, interrupted = "interrupted", True
        console.print("interrupted; stopping everything")
    except Exception:  # noqa: BLE001 # whatever went wrong, everything that was started must end
        problem = "the demo itself failed"
        console.print_exception()
    finally:
        demo.programs.kill_all()
        if keep or (problem and not interrupted):
            console.print(f"scratch folder kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if problem else 0)


if __name__ == "__main__":
    typer.run(main)
