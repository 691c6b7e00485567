"""Reading every page of a list."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from fleetwright.v1.agent_registry_service_pb2 import Agent, ListAgentsRequest, ListAgentsResponse

from controlplane.cli.output import Output
from controlplane.cli.paging import LARGEST_PAGE, read_all


@dataclass
class Pages:
    """A server with so many agents, whose page tokens are the place of the next one."""

    agents: int
    asked: list[tuple[int, str]] = field(default_factory=list)

    def list(self, request: ListAgentsRequest) -> ListAgentsResponse:
        self.asked.append((request.page_size, request.page_token))
        begin = int(request.page_token or 0)
        end = min(begin + request.page_size, self.agents)
        return ListAgentsResponse(
            agents=[Agent(agent_id=str(number)) for number in range(begin, end)],
            next_page_token=str(end) if end < self.agents else "",
            total_size=0 if begin else self.agents,
        )


def read(pages: Pages, limit: int) -> ListAgentsResponse:
    return read_all(pages.list, ListAgentsRequest(), "agents", limit, Output())


@pytest.mark.parametrize("agents", [0, 1, LARGEST_PAGE, LARGEST_PAGE + 1, 2500])
def test_without_a_limit_every_page_is_read(agents: int) -> None:
    found = read(Pages(agents), 0)
    assert [agent.agent_id for agent in found.agents] == [str(number) for number in range(agents)]
    assert (found.total_size, found.next_page_token) == (agents, "")


def test_a_limit_is_met_exactly_and_says_where_it_goes_on() -> None:
    pages = Pages(5000)
    found = read(pages, 1200)
    assert (len(found.agents), found.total_size, found.next_page_token) == (1200, 5000, "1200")
    assert pages.asked == [(1000, ""), (200, "1000")]


def test_a_limit_above_what_there_is_reads_it_all() -> None:
    found = read(Pages(3), 10)
    assert (len(found.agents), found.next_page_token) == (3, "")
