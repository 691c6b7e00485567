"""Enrolment and running through an HTTP CONNECT proxy: nothing goes beside it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from fleetwright.v1 import work_pb2

from tests.integration.agent.connect_proxy import connect_proxy
from tests.integration.agent.small_server import small_server
from tests.integration.agent.test_agent_program import program


async def test_an_agent_enrols_and_works_through_a_proxy(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with small_server() as (server, enrolment_port, agent_port), connect_proxy() as proxy:
        url = proxy.url.replace("//", "//user:p%40ss@")
        enrolling = await program(
            "enroll",
            f"--server=127.0.0.1:{enrolment_port}",
            f"--agent-address=127.0.0.1:{agent_port}",
            "--agent-id=web-1",
            f"--state={state}",
            f"--http-proxy={url}",
            FLEETWRIGHT_JOIN_TOKEN=server.token,
        )
        _, errors = await enrolling.communicate()
        assert enrolling.returncode == 0, errors.decode()
        # Once for the root, and once for the call.
        assert proxy.tunnels == [f"127.0.0.1:{enrolment_port}"] * 2
        assert proxy.authorizations[0] == "Proxy-Authorization: Basic dXNlcjpwQHNz"
        agent = await program("run", f"--state={state}", f"--http-proxy={proxy.url}")
        echoed, _ = await server.give(echo=work_pb2.EchoSpec(payload=b"ping"))
        assert echoed.echo.payload == b"ping"
        assert proxy.tunnels[2:] == [f"127.0.0.1:{agent_port}"]
        agent.send_signal(signal.SIGTERM)
        await agent.communicate()
        assert agent.returncode == 0


async def test_a_proxy_that_refuses_is_named_with_its_answer(tmp_path: Path) -> None:
    async with small_server() as (server, enrolment_port, _), connect_proxy() as proxy:
        proxy.refusing = True
        enrolling = await program(
            "enroll",
            f"--server=127.0.0.1:{enrolment_port}",
            f"--state={tmp_path / 'state'}",
            "--agent-id=web-1",
            f"--http-proxy={proxy.url}",
            FLEETWRIGHT_JOIN_TOKEN=server.token,
        )
        _, errors = await enrolling.communicate()
    assert enrolling.returncode == 1
    assert f"opens no tunnel to 127.0.0.1:{enrolment_port}: HTTP/1.1 403 Forbidden".encode() in errors
    assert server.tokens == []


@pytest.mark.parametrize("url", ["proxy:3128", "https://proxy:3128", "http://proxy", "http://u:secret@:x"])
async def test_what_is_no_proxy_is_refused_before_anything_is_done(tmp_path: Path, url: str) -> None:
    enrolling = await program(
        "enroll",
        "--server=127.0.0.1",
        f"--state={tmp_path / 'state'}",
        f"--http-proxy={url}",
        FLEETWRIGHT_JOIN_TOKEN="fwt1.a.b.c",
    )
    _, errors = await enrolling.communicate()
    assert enrolling.returncode == 2
    assert b"--http-proxy" in errors
    assert b"secret" not in errors
    assert not (tmp_path / "state").exists()
