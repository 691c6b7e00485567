"""``fleetwright explain``: why a task or an agent is in its state, since when, and what happens next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer
from fleetwright.v1.agent_registry_service_pb2 import Presence
from fleetwright.v1.delivery_service_pb2 import ExplainAgentRequest, ExplainTaskRequest, Explanation
from rich.text import Text

from controlplane.cli.agents import COLORS as PRESENCE_COLORS
from controlplane.cli.agents import AgentName
from controlplane.cli.agents import resource as agent_resource
from controlplane.cli.calling import calling, noun
from controlplane.cli.connection import Client
from controlplane.cli.output import Output, clean
from controlplane.cli.tasks.events import task_named
from controlplane.cli.tasks.views import state_name, state_style
from controlplane.cli.values import age, enum_name, shown_time

app = noun(
    "Why a task or an agent is in its state, and what is next: task, agent.\n\n"
    "\b\nExamples:\n"
    "  fleetwright explain task tasks/NAME\n"
    "  fleetwright explain agent web-1"
)


@app.command("task")
@calling
def task_(
    client: Client,
    output: Output,
    task: Annotated[str, typer.Argument(metavar="TASK", help="tasks/ID.")],
) -> None:
    """Say why a task is in its state, since when, and what happens next.

    Where it waits: for its agent, for a time, or behind other tasks. Where it is with the agent: whether that
    is known to have it, and until when the server waits. Where it ended: what decided. Programs take the
    codes of the sentences, with -o json; `fleetwright tasks events` has every step one by one.

    \b
    Examples:
      fleetwright explain task tasks/NAME
      fleetwright explain task tasks/NAME -o json | jq -r '.explanation.because[].code'
    """
    response = client.delivery.ExplainTask(ExplainTaskRequest(name=task_named(task)))
    state = state_name(response.state)
    _print(output, response, Text(state, state_style(state)))


@app.command("agent")
@calling
def agent_(client: Client, output: Output, agent: AgentName) -> None:
    """Say why an agent has its presence, since when, what work it has, and what happens next.

    \b
    Examples:
      fleetwright explain agent web-1
      fleetwright explain agent web-1 -o yaml
    """
    response = client.delivery.ExplainAgent(ExplainAgentRequest(name=agent_resource(agent)))
    presence = enum_name(Presence.DESCRIPTOR, response.presence)
    _print(output, response, Text(presence, PRESENCE_COLORS.get(presence, "")))


def _print(output: Output, response: Any, state: Text) -> None:
    if output.for_people:
        output.lines(lines(output, response.name, state, response.explanation))
    else:
        output.document(response, [response])


def lines(output: Output, name: str, state: Text, explanation: Explanation) -> Iterator[Text]:
    """Yield an explanation as people read it."""
    since = f"{shown_time(explanation, 'since_time')} ({age(explanation, 'since_time', output.now)} ago)"
    yield Text.assemble((clean(name), "bold"), " is ", state, f" since {since}.")
    yield from _part("Because", [Text(clean(sentence.text)) for sentence in explanation.because])
    yield from _part("Next", [Text(clean(step.text)) for step in explanation.next_steps])
    yield from _part("You can", [_remedy(remedy) for remedy in explanation.remedies])


def _part(title: str, items: Sequence[Text]) -> Iterator[Text]:
    if items:
        yield Text()
        yield Text(f"{title}:", "bold")
        yield from (Text("  - ") + item for item in items)


def _remedy(remedy: Any) -> Text:
    if not remedy.command:
        return Text(f"{clean(remedy.text)}.")
    return Text.assemble(f"{clean(remedy.text)}: ", (clean(remedy.command), "cyan"))
