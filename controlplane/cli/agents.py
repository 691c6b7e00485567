"""``fleetwright agents``: who exists, and how they are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Final

import grpc
import typer
from fleetwright.errors import Failure
from fleetwright.v1.agent_registry_service_pb2 import (
    Agent,
    DeleteAgentRequest,
    GetAgentRequest,
    ListAgentsRequest,
    Presence,
    PresenceReason,
    UpdateAgentRequest,
    WatchAgentsRequest,
)
from google.protobuf.field_mask_pb2 import FieldMask

from controlplane.cli import completion
from controlplane.cli.calling import calling, noun
from controlplane.cli.connection import Client
from controlplane.cli.failures import CommandFailed, Exit
from controlplane.cli.output import Column, Output, clean
from controlplane.cli.paging import print_all
from controlplane.cli.values import (
    age,
    enum_name,
    label_changes,
    shown_duration,
    shown_labels,
    shown_time,
)
from controlplane.cli.watching import Watched, watch

app = noun(
    "Who exists, and how they are: list, show, label, group, clear-clone, delete, watch.\n\n"
    "\b\nExamples:\n"
    "  fleetwright agents list --filter 'presence = ONLINE AND labels.env = prod'\n"
    "  fleetwright agents show web-1\n"
    "  fleetwright agents label web-1 env=prod rack-\n"
    "  fleetwright agents group web-1 canary\n"
    "  fleetwright agents watch"
)

ETAG_TRIES: Final = 5
"""How often a label is tried again where someone else changed the agent meanwhile."""

AgentName = Annotated[
    str, typer.Argument(metavar="AGENT", help="Its id, or agents/ID.", autocompletion=completion.agents)
]
Filter = Annotated[
    str,
    typer.Option("--filter", metavar="FILTER", help="Only those that match, such as 'presence = ONLINE'."),
]

COLORS: Final = {"ONLINE": "green", "STALE": "yellow", "OFFLINE": "red"}
"""How a presence looks on a terminal."""


def columns(now: datetime) -> Sequence[Column[Agent]]:
    """Return the columns of a table of agents."""
    return (
        Column("NAME", lambda agent: agent.agent_id),
        Column("PRESENCE", presence, style=lambda value: COLORS.get(value, "")),
        Column("SINCE", lambda agent: age(agent, "presence_time", now)),
        Column("HOST", lambda agent: agent.host.hostname),
        Column("OS", lambda agent: " ".join(filter(None, (agent.host.os_name, agent.host.os_version)))),
        Column("VERSION", lambda agent: agent.agent_version),
        Column("LABELS", lambda agent: shown_labels(agent.labels)),
        Column("GROUPS", lambda agent: ",".join(agent.groups), wide=True),
        Column("REASON", _reason, wide=True),
        Column("LAST SEEN", lambda agent: age(agent, "last_seen_time", now), wide=True),
        Column("ARCH", lambda agent: agent.host.architecture, wide=True),
        Column("CERTIFICATE ENDS", lambda agent: shown_time(agent, "certificate_expire_time"), wide=True),
        Column("CLONE", _clone, wide=True, style=lambda value: "red"),
    )


def _details(now: datetime) -> Sequence[Column[Agent]]:
    return (
        Column("Name", lambda agent: agent.name),
        Column("Presence", presence, style=lambda value: COLORS.get(value, "")),
        Column("Since", lambda agent: _when(agent, "presence_time", now)),
        Column("Reason", lambda agent: ": ".join(filter(None, (_reason(agent), agent.presence_detail)))),
        Column("Last seen", lambda agent: _when(agent, "last_seen_time", now)),
        Column("Labels", lambda agent: shown_labels(agent.labels)),
        Column("Groups", lambda agent: ",".join(agent.groups)),
        Column("Notes", lambda agent: agent.notes),
        Column("Host", lambda agent: agent.host.hostname),
        Column("System", lambda agent: " ".join(filter(None, (agent.host.os_name, agent.host.os_version)))),
        Column("Architecture", lambda agent: agent.host.architecture),
        Column("Agent version", lambda agent: agent.agent_version),
        Column("Task kinds", lambda agent: ", ".join(agent.task_kinds)),
        Column("Clock offset", _clock_offset),
        Column("Clone", _clone, style=lambda value: "red"),
        Column("Session epoch", lambda agent: str(agent.session_epoch or "")),
        Column("Certificate ends", lambda agent: shown_time(agent, "certificate_expire_time")),
        Column("Enrolled", lambda agent: _when(agent, "enroll_time", now)),
        Column("Changed", lambda agent: _when(agent, "update_time", now)),
    )


@app.command("list")
@calling
def list_(
    client: Client,
    output: Output,
    filter_text: Filter = "",
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="At most so many; 0 for all.")] = 0,
) -> None:
    """List the agents that match a filter, ordered by name.

    A filter compares fields of an agent: agent_id, presence, hostname, os_family, agent_version, labels.KEY,
    groups and others; docs/filters.md has all of them.

    \b
    Examples:
      fleetwright agents list
      fleetwright agents list --filter 'presence = OFFLINE AND os_family = linux' -o wide
      fleetwright agents list --filter 'labels.env = prod' -o name
      fleetwright agents list -o json | jq -r '.agents[].agentId'
    """
    request, call = ListAgentsRequest(filter=filter_text), client.agents.ListAgents
    empty = "no agent matches" if filter_text else "no agents yet"
    print_all(output, call, request, "agents", limit, columns(output.now), empty)


@app.command("show")
@calling
def show(client: Client, output: Output, agent: AgentName) -> None:
    """Show all that is known of one agent.

    \b
    Examples:
      fleetwright agents show web-1
      fleetwright agents show web-1 -o yaml
    """
    response = client.agents.GetAgent(GetAgentRequest(name=resource(agent)))
    output.one(response.agent, _details(output.now))


@app.command("label")
@calling
def label(
    client: Client,
    output: Output,
    agent: AgentName,
    changes: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE|KEY-...", help="Set a label, or remove it.")
    ],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also change labels that have another value.")
    ] = False,
) -> None:
    """Set and remove labels of an agent, all of them at once.

    A label that has another value is changed only with --overwrite, so that a slip of the hand takes nothing
    away. What others change meanwhile is kept.

    \b
    Examples:
      fleetwright agents label web-1 env=prod rack=r12
      fleetwright agents label web-1 env=test --overwrite
      fleetwright agents label web-1 rack-
    """
    chosen, removed = label_changes(changes)
    output.one(relabel(client, resource(agent), chosen, removed, overwrite=overwrite), _details(output.now))


@app.command("clear-clone")
@calling
def clear_clone(client: Client, output: Output, agent: AgentName) -> None:
    """Take away the suspicion that an agent was copied.

    The next that comes with its identity is believed, so stop the copy first. With
    FLEETWRIGHT_CLONE_POLICY=refuse this lets in again what was turned away.

    \b
    Examples:
      fleetwright agents list --filter 'suspected_clone = true'
      fleetwright agents clear-clone web-1
    """
    wanted = Agent(name=resource(agent), suspected_clone=False)
    request = UpdateAgentRequest(agent=wanted, update_mask=FieldMask(paths=["suspected_clone"]))
    output.one(client.agents.UpdateAgent(request).agent, _details(output.now))


@app.command("group")
@calling
def group(
    client: Client,
    output: Output,
    agent: AgentName,
    changes: Annotated[
        list[str], typer.Argument(metavar="GROUP|GROUP-...", help="Put it into a group, or take it out.")
    ],
) -> None:
    """Put an agent into groups, and take it out of them, all at once.

    A selector names a group as groups:GROUP. What others change meanwhile is kept.

    \b
    Examples:
      fleetwright agents group web-1 canary web
      fleetwright agents group web-1 canary-
      fleetwright agents list --filter 'groups:canary'
    """
    removed = {change[:-1] for change in changes if change.endswith("-")}
    added = {change for change in changes if not change.endswith("-")}
    if both := sorted(added & removed):
        raise typer.BadParameter(f"{', '.join(both)}: to be put in and taken out: name each group once")
    output.one(regroup(client, resource(agent), added, removed), _details(output.now))


@app.command("delete")
@calling
def delete(
    client: Client,
    output: Output,
    agent: AgentName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete an agent for good.

    Its certificates are denied, its streams closed, its unfinished tasks cancelled; the same id may be
    enrolled anew. Asks before it does so on a terminal, and needs --yes elsewhere.

    \b
    Examples:
      fleetwright agents delete web-1
      fleetwright agents delete web-1 --yes
    """
    name = resource(agent)
    etag = ""
    if not yes:
        etag = _confirmed(client, output, name)
    response = client.agents.DeleteAgent(DeleteAgentRequest(name=name, etag=etag))
    if output.for_people:
        tasks = response.cancelled_tasks
        output.text(f"{name} deleted; {tasks} unfinished task{'' if tasks == 1 else 's'} cancelled")
    else:
        output.document(response, [DeleteAgentRequest(name=name)])


@app.command("watch")
@calling
def watch_(client: Client, output: Output, filter_text: Filter = "") -> None:
    """Show agents as they are, and every change of them, until Ctrl-C.

    On a terminal it is a table that is drawn again and again; elsewhere, a line for each change. A connection
    that is lost is made again, and the watch goes on where it was.

    \b
    Examples:
      fleetwright agents watch
      fleetwright agents watch --filter 'labels.env = prod'
      fleetwright agents watch -o json | jq --unbuffered -r '.agent.agentId + " " + .agent.presence'
    """
    watch(
        client,
        output,
        lambda token: client.agents.WatchAgents(WatchAgentsRequest(filter=filter_text, resume_token=token)),
        Watched("agent", columns, "agents"),
    )


def resource(agent: str) -> str:
    """Return the name of an agent's resource, from that or from its id."""
    return agent if agent.startswith("agents/") else f"agents/{agent}"


def presence(agent: Agent) -> str:
    """Return an agent's presence as people read it."""
    return enum_name(Presence.DESCRIPTOR, agent.presence)


def _reason(agent: Agent) -> str:
    return enum_name(PresenceReason.DESCRIPTOR, agent.presence_reason).lower().replace("_", " ")


def _clone(agent: Agent) -> str:
    return "suspected" if agent.suspected_clone else ""


def _clock_offset(agent: Agent) -> str:
    return shown_duration(agent.clock_offset.ToTimedelta()) if agent.HasField("clock_offset") else ""


def _when(agent: Agent, field: str, now: datetime) -> str:
    past = age(agent, field, now)
    return f"{shown_time(agent, field)} ({past} ago)" if past else ""


def relabel(
    client: Client, name: str, chosen: dict[str, str], removed: set[str], *, overwrite: bool
) -> Agent:
    """Change labels of the agent that was read, and read it again where someone else was faster."""
    mask = FieldMask(paths=[f"labels.{key}" for key in [*chosen, *removed]])

    def wanted(present: Agent) -> Agent:
        taken = [key for key, value in chosen.items() if present.labels.get(key, value) != value]
        if taken and not overwrite:
            values = ", ".join(f"{key} is {present.labels[key]!r}" for key in taken)
            raise CommandFailed(f"{name}: {values} already: give --overwrite to change it")
        return Agent(name=name, etag=present.etag, labels=chosen)

    return _update(client, name, mask, wanted)


def regroup(client: Client, name: str, added: set[str], removed: set[str]) -> Agent:
    """Change the groups of the agent that was read, as ``relabel`` does."""

    def wanted(present: Agent) -> Agent:
        return Agent(name=name, etag=present.etag, groups=sorted({*present.groups, *added} - removed))

    return _update(client, name, FieldMask(paths=["groups"]), wanted)


def _update(client: Client, name: str, mask: FieldMask, wanted: Callable[[Agent], Agent]) -> Agent:
    for last in (False,) * (ETAG_TRIES - 1) + (True,):
        present = client.agents.GetAgent(GetAgentRequest(name=name)).agent
        request = UpdateAgentRequest(agent=wanted(present), update_mask=mask)
        try:
            return client.agents.UpdateAgent(request).agent
        except grpc.RpcError as error:
            if last or Failure.of(error).code is not grpc.StatusCode.ABORTED:
                raise
    raise AssertionError("the last try returned or raised")


def _confirmed(client: Client, output: Output, name: str) -> str:
    """Ask whether the agent shall go; return the etag of what was shown. Raises ``CommandFailed``."""
    if not (sys.stdin.isatty() and output.errors.is_terminal):
        raise CommandFailed(f"{name}: there is no terminal to ask on: give --yes to delete it", Exit.USAGE)
    agent = client.agents.GetAgent(GetAgentRequest(name=name)).agent
    shown = ", ".join(filter(None, (presence(agent), agent.host.hostname, shown_labels(agent.labels))))
    output.errors.print(clean(f"Delete {name} ({shown}) for good? [y/N] "), end="")
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise CommandFailed(f"{name}: kept")
    return agent.etag
