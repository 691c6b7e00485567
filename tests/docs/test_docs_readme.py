"""What the README promises to a newcomer, beyond that its commands run."""

from __future__ import annotations

from tests.docs.blocks import ROOT, load

FIRST = "a-first-server-and-a-first-agent"
README = load(ROOT / "README.md")


def test_the_second_agent_is_enrolled_in_under_ten_commands() -> None:
    commands = [line for block in README.section(FIRST) for line in block.lines]
    enrolled = next(number for number, line in enumerate(commands, 1) if "--agent-id second" in line)
    one_that_makes_the_environment = 1
    assert one_that_makes_the_environment + enrolled < 10


def test_every_recipe_with_grpcurl_has_one_with_buf_that_is_always_run() -> None:
    blocks = README.section("calls")
    with_grpcurl = "\n".join("\n".join(b.lines) for b in blocks if "grpcurl" in b.marks.needs)
    with_buf = "\n".join("\n".join(b.lines) for b in blocks if b.is_command and not b.marks.needs)
    methods = ("ListAgents", "CreateTask", "WatchTasks", "Health/Check", "Channelz/GetServerSockets")
    assert [m for m in methods if m not in with_grpcurl or m not in with_buf] == []
    assert (" list\n" in with_grpcurl, "--list-methods" in with_buf) == (True, True)
