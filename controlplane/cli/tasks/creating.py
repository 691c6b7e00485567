"""Creating work, and waiting for its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import uuid4

import grpc
import typer
from fleetwright.errors import Failure
from fleetwright.v1 import work_pb2
from fleetwright.v1.agent_registry_service_pb2 import ListAgentsRequest
from fleetwright.v1.task_service_pb2 import (
    CreateTaskBatchRequest,
    CreateTaskRequest,
    GetTaskBatchRequest,
    GetTaskRequest,
    Task,
    TaskBatch,
)

from controlplane.cli import completion
from controlplane.cli.agents import resource as agent_resource
from controlplane.cli.calling import UNANSWERED, calling, explain
from controlplane.cli.connection import Client
from controlplane.cli.failures import CommandFailed, Exit
from controlplane.cli.output import Output
from controlplane.cli.tasks import spec as task_spec
from controlplane.cli.tasks import views
from controlplane.cli.tasks.app import app
from controlplane.cli.tasks.expanding import expanded
from controlplane.cli.tasks.naming import BATCHES, TASKS, quoted
from controlplane.cli.tasks.said import print_output
from controlplane.cli.tasks.waiting import Counts, must_have_succeeded, wait_for

CREATE_TRIES: Final = 3
"""How often a creation is sent again where no answer came: its request id makes it one creation."""


def _work(option: str, metavar: str | None, text: str, **more: Any) -> Any:
    return typer.Option(option, metavar=metavar, help=text, rich_help_panel="Work", **more)


def _script(option: str, metavar: str | None, text: str) -> Any:
    return typer.Option(option, metavar=metavar, help=text, rich_help_panel="Scripts")


def _delivery(option: str, metavar: str | None, text: str, **more: Any) -> Any:
    return typer.Option(option, metavar=metavar, help=text, rich_help_panel="Delivery", **more)


@app.command("create")
@calling
def create(
    client: Client,
    output: Output,
    agents: Annotated[
        list[str] | None,
        typer.Argument(metavar="[AGENT]...", help="Who is to do it.", autocompletion=completion.agents),
    ] = None,
    selector: Annotated[
        str | None,
        typer.Option(
            metavar="FILTER",
            help="Every agent that matches now, such as 'groups:canary'; '*' is all of them.",
        ),
    ] = None,
    percent: Annotated[
        int | None,
        typer.Option("--percent", metavar="N", help="Of those only so many, 1 to 100.", min=1, max=100),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", metavar="N", help="Which ones: the same, unless it is another.", min=0, max=2**32 - 1
        ),
    ] = None,
    script: Annotated[str | None, _work("--script", "TEXT", "Run this script.")] = None,
    script_file: Annotated[
        Path | None, _work("--script-file", "FILE", "Run the script in this file; - is standard input.")
    ] = None,
    inventory: Annotated[bool, _work("--inventory", None, "Tell what the host is made of.")] = False,
    logs: Annotated[str | None, _work("--logs", "PATH", "Read the end of a log on the host.")] = None,
    echo: Annotated[str | None, _work("--echo", "TEXT", "Send the text back; to try the way.")] = None,
    interpreter: Annotated[
        str | None,
        _script("--interpreter", "NAME", "What runs the script: its first line's #! names it, or sh does."),
    ] = None,
    arg: Annotated[list[str] | None, _script("--arg", "WORD", "Argument of the script; repeatable.")] = None,
    env: Annotated[
        list[str] | None,
        _script("--env", "KEY=VALUE", "Variable of the script; repeatable. Secrets: better in a file."),
    ] = None,
    env_file: Annotated[
        Path | None, _script("--env-file", "FILE", "Variables, KEY=VALUE a line; - is standard input.")
    ] = None,
    user: Annotated[str | None, _script("--user", "NAME", "Account to run as; the policy allows it.")] = None,
    time_limit: Annotated[
        str | None, _script("--time-limit", "DURATION", "Ended when it runs for longer.")
    ] = None,
    packages: Annotated[bool, _work("--packages", None, "With --inventory: installed packages too.")] = False,
    contains: Annotated[str | None, _work("--contains", "TEXT", "With --logs: only lines with it.")] = None,
    max_bytes: Annotated[
        int | None,
        _work("--max-bytes", "N", "With --logs: at most so much.", min=0, max=task_spec.LARGEST_LOG_BYTES),
    ] = None,
    priority: Annotated[
        int | None, _delivery("--priority", "N", "Higher goes first to its agent, 0 to 100.", min=0, max=100)
    ] = None,
    queue_time: Annotated[
        str | None, _delivery("--queue-time", "DURATION", "Given up when not begun by then. [default: 7d]")
    ] = None,
    run_limit: Annotated[
        str | None, _delivery("--run-limit", "DURATION", "Given up when it runs longer. [default: 10m]")
    ] = None,
    idempotent: Annotated[
        bool, _delivery("--idempotent", None, "May be run again after an interruption.")
    ] = False,
    max_attempts: Annotated[
        int | None, _delivery("--max-attempts", "N", "How often it may fail, 1 to 20.", min=1, max=20)
    ] = None,
    if_offline: Annotated[
        task_spec.IfOffline | None,
        _delivery(
            "--if-offline",
            None,
            "What becomes of it while its agent is away: it waits, is skipped, waits as the latest of a key, "
            "or it waits for a maintenance window. [default: queue]",
        ),
    ] = None,
    supersede_key: Annotated[
        str | None,
        _delivery("--supersede-key", "KEY", "For latest: of what it is a version, such as sshd-config."),
    ] = None,
    window: Annotated[
        str | None, _delivery("--window", "CRON", "For window: when it opens, such as '0 2 * * SAT'.")
    ] = None,
    window_zone: Annotated[
        str | None, _delivery("--window-zone", "ZONE", "Where that is, such as Europe/Berlin. [default: UTC]")
    ] = None,
    window_duration: Annotated[
        str | None, _delivery("--window-duration", "DURATION", "For how long it is open. [default: 1h]")
    ] = None,
    request_id: Annotated[
        str | None, _delivery("--request-id", "ID", "The same one twice creates once. [default: a new one]")
    ] = None,
    allow_empty: Annotated[
        bool, _delivery("--allow-empty", None, "No error where the selector matches no agent.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="Wait for the end; exit status 1 unless all succeeded.")
    ] = False,
) -> None:
    """Give work to agents, online or not.

    One agent gets a task; several, or a selector, a batch: a task for each that is chosen at this moment. The
    tasks of a large batch are made after it is created; a terminal shows how far that is, and leaving it does
    not end that. With --wait what a single task's script writes is printed as it was written, when it has
    ended. docs/task-states.md tells the policies for agents that are away.

    \b
    Examples:
      fleetwright tasks create web-1 --script 'uname -sr; id -un' --wait
      fleetwright tasks create web-1 web-2 --script-file mend.sh --arg --force --env-file secrets.env
      fleetwright tasks create --selector 'presence = ONLINE AND labels.env = prod' --inventory --wait
      fleetwright tasks create web-1 --logs /var/log/syslog --contains error --wait
      fleetwright tasks create --selector 'groups:web' --percent 10 --script-file mend.sh --if-offline skip
      fleetwright tasks create --selector '*' --script-file sshd.sh --supersede-key sshd-config
      fleetwright tasks create web-1 --script reboot --window '0 2 * * SAT' --window-zone Europe/Berlin \\
        --window-duration 2h
    """
    spec = task_spec.spec(
        task_spec.Work(script, script_file, inventory, logs, echo),
        task_spec.ScriptDetails(interpreter, arg or (), env or (), env_file, user, time_limit),
        task_spec.OtherDetails(packages, contains, max_bytes),
    )
    options = task_spec.options(
        task_spec.Delivery(priority, queue_time, run_limit, idempotent, max_attempts),
        task_spec.Absence(if_offline, supersede_key, window, window_zone, window_duration),
    )
    named = list(dict.fromkeys(agent_resource(agent) for agent in agents or ()))
    if named and selector is not None:
        raise typer.BadParameter("name AGENTs or choose them with --selector, not both")
    if not named and selector is None:
        raise typer.BadParameter("name AGENTs, or choose them with --selector; '*' is all of them")
    if selector is None and (percent is not None or seed is not None):
        raise typer.BadParameter("--percent and --seed choose among those of a --selector")
    if seed is not None and percent is None:
        raise typer.BadParameter("--seed says which agents --percent chooses: give both")
    request_id = request_id or str(uuid4())
    if len(named) == 1:
        request = CreateTaskRequest(agent=named[0], spec=spec, options=options, request_id=request_id)
        made = surely(client, client.tasks.CreateTask, request, output).task
        _created_task(client, output, made, wait=wait)
        return
    chosen = selector if selector is not None else _selector(client, named)
    batch = surely(
        client,
        client.tasks.CreateTaskBatch,
        CreateTaskBatchRequest(
            selector=chosen,
            spec=spec,
            options=options,
            request_id=request_id,
            allow_empty=allow_empty,
            percentage=percent or 0,
            seed=seed or 0,
        ),
        output,
    ).batch
    _created_batch(client, output, batch, wait=wait)


def surely(client: Client, call: Any, request: Any, output: Output) -> Any:
    """Create, and ask again where no answer came: the request id tells the server that it is the same.

    Raises ``CommandFailed`` with the request id where none came at last: it may have been created.
    """
    for last in (False,) * (CREATE_TRIES - 1) + (True,):
        try:
            return call(request)
        except grpc.RpcError as error:
            failure = Failure.of(error)
            if failure.code not in UNANSWERED:
                raise
            if last:
                raise _perhaps_created(explain(failure, client), request.request_id) from None
            output.summary("no answer: asking again; it is created once")
    raise AssertionError("the last try returned or raised")


def _perhaps_created(failed: CommandFailed, request_id: str) -> CommandFailed:
    failed.metadata["request_id"] = request_id
    failed.hint = (
        f"It may have been created: a repetition with --request-id {request_id} makes no second one."
    )
    return failed


def _selector(client: Client, names: list[str]) -> str:
    """Return the selector of agents by name; raises ``CommandFailed`` for one that is unknown."""
    ids = [name.removeprefix("agents/") for name in names]
    selector = f"agent_id = ({' OR '.join(ids)})"
    request = ListAgentsRequest(filter=selector, page_size=len(ids))
    known = {agent.name for agent in client.agents.ListAgents(request).agents}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise CommandFailed(
            f"{', '.join(unknown)}: no such agent, so nothing was created: see `fleetwright agents list`",
            Exit.NOT_FOUND,
        )
    return selector


@contextmanager
def _left_behind(output: Output, name: str) -> Iterator[None]:
    """Where waiting ends before the work does, name what goes on without it."""
    try:
        yield
    except (KeyboardInterrupt, grpc.RpcError):
        output.note(f"{name} goes on: `fleetwright tasks wait {name}` waits for it, `cancel` ends it")
        raise


def _created_task(client: Client, output: Output, task: Task, *, wait: bool) -> None:
    if not wait:
        if output.for_people:
            output.text(task.name)
            output.summary(f"see `fleetwright tasks show {task.name}`")
        else:
            output.one(task, [])
        return
    with _left_behind(output, task.name):
        counts = wait_for(client, output, f"task_id = {quoted(task.name.removeprefix(TASKS))}", 1)
    ended = client.tasks.GetTask(GetTaskRequest(name=task.name)).task
    if output.for_people:
        if ended.result.stdout_bytes or ended.result.stderr_bytes or ended.result.log_bytes:
            print_output(client, task.name, work_pb2.OUTPUT_STREAM_UNSPECIFIED)
        words = views.result_words(ended) or ended.state_reason
        output.note(f"{task.name}: {views.state_name(ended.state)}{f': {words}' if words else ''}")
    else:
        output.one(ended, [])
    must_have_succeeded(counts)


def _created_batch(client: Client, output: Output, batch: TaskBatch, *, wait: bool) -> None:
    counts: Counts = {}
    with _left_behind(output, batch.name):
        if wait or output.live:
            batch = expanded(client, output, batch)
        if wait and batch.task_count:
            filter_ = f"batch_id = {quoted(batch.name.removeprefix(BATCHES))}"
            counts = wait_for(client, output, filter_, batch.task_count)
    if counts:
        batch = client.tasks.GetTaskBatch(GetTaskBatchRequest(name=batch.name)).batch
    if output.for_people:
        output.text(batch.name)
        states: Counts = {one.state: one.count for one in batch.state_counts}
        output.note(f"{views.tasks_words(batch)}: {views.counts_words(states)}")
    else:
        output.one(batch, [])
    if counts:
        must_have_succeeded(counts)
