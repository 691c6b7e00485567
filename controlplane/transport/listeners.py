"""The server's ports: one gRPC server for each, and the plaintext one of probes.

One ``grpc.aio.Server`` a listener, because a call's authentication context does
not say by which port it came in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta

import grpc

from controlplane.callers import Caller
from controlplane.clock import Clock
from controlplane.observability.metrics import Metrics
from controlplane.transport import addresses, channel_options
from controlplane.transport.channel_options import ChannelOptions
from controlplane.transport.diagnostics import Health, add_channelz, add_reflection
from controlplane.transport.health_listener import HEAD_TIMEOUT, HealthListener
from controlplane.transport.interceptors import CallInterceptor
from controlplane.transport.methods import METHODS, Listener, Method, for_listener
from controlplane.transport.peers import Peers
from controlplane.transport.tls import RotatingCredentials, TlsMaterial

# Each listener has its share of the open files that preflight reserves, so that none starves another.
SPARE_AGENT_CONNECTIONS = 128
ADMIN_CONNECTIONS = 128
ENROLLMENT_CONNECTIONS = 512

_UNTIL_CLOSED = timedelta(days=1)


GRPC_LISTENERS = (Listener.AGENTS, Listener.ADMIN, Listener.ENROLLMENT)
"""The listeners with TLS, in the order in which they are opened."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports to listen on; 0 lets the system choose. As returned by ``Listeners.open``: those bound.

    There, 0 is a listener that this process does not have.
    """

    agents: int
    admin: int
    enrollment: int
    health: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What the listeners hold their peers to.

    ``keepalive`` and ``ping_timeout`` together are how long a stopped peer stays unseen.
    """

    handshake_timeout: timedelta = timedelta(seconds=10)
    keepalive: timedelta = timedelta(seconds=15)
    ping_timeout: timedelta = timedelta(seconds=10)
    max_connection_age: timedelta = timedelta(days=7)
    max_agents: int = 10_000
    health_head_timeout: timedelta = HEAD_TIMEOUT

    @property
    def max_agent_connections(self) -> int:
        """Connections of agents: few hold a second one, while a new session takes over from the old."""
        return self.max_agents + SPARE_AGENT_CONNECTIONS


@dataclass(frozen=True, slots=True)
class Material:
    """The TLS material of the three gRPC listeners."""

    agents: TlsMaterial
    admin: TlsMaterial
    enrollment: TlsMaterial


class GrpcListener:
    """One TLS port and the gRPC server behind it; add servicers to ``server`` before ``open``."""

    def __init__(
        self,
        listener: Listener,
        host: str,
        port: int,
        *,
        material: TlsMaterial,
        options: ChannelOptions,
        peers: Peers | None,
        metrics: Metrics,
        methods: Mapping[str, Method] = METHODS,
    ) -> None:
        self.listener = listener
        self._host, self._port = host, port
        self._closing: asyncio.Task[None] | None = None
        self._tls = RotatingCredentials(material, metrics.tls_handshakes.labels(listener.value).inc)
        self.server = grpc.aio.server(
            interceptors=(CallInterceptor(listener, peers=peers, metrics=metrics, methods=methods),),
            options=options,
        )

    async def open(self) -> int:
        """Listen, and return the port; raises ``StartRefused`` where it cannot be had."""
        try:
            port = self.server.add_secure_port(addresses.join(self._host, self._port), self._tls.credentials)
        except RuntimeError as error:
            raise addresses.refused(self.listener.value, self._host, self._port) from error
        await self.server.start()
        return port

    def rotate(self, material: TlsMaterial) -> None:
        """Use ``material`` for new connections; raises ``ValueError`` and changes nothing where it is bad."""
        self._tls.rotate(material)

    async def close_port(self) -> None:
        """Listen no more; calls in flight go on until ``close``.

        What comes on a connection that is open is sent elsewhere (GOAWAY): its calls end as they would,
        and a new one makes the client connect anew.
        """
        if self._closing is None:
            # gRPC has no call of this name: a stop closes the port at once, and then waits for its grace.
            self._closing = asyncio.create_task(self.server.stop(_UNTIL_CLOSED.total_seconds()))
            await asyncio.sleep(0)

    async def close(self, grace: timedelta) -> None:
        """Take no new calls, let those in flight end for ``grace``, then cancel them."""
        await self.server.stop(grace.total_seconds())
        if self._closing is not None:
            await self._closing


class Listeners:
    """All ports of a process: those of ``serves``, and the one for probes.

    Made on the running event loop, after any fork. ``shared_agents_port`` lets other
    processes listen on the port for agents too.
    """

    def __init__(
        self,
        host: str,
        health_host: str,
        ports: Ports,
        *,
        material: Material,
        trust_domain: str,
        clock: Clock,
        metrics: Metrics,
        denied: Callable[[str], bool],
        seen: Callable[[Caller], None] = lambda _caller: None,
        limits: Limits | None = None,
        methods: Mapping[str, Method] = METHODS,
        serves: Collection[Listener] = GRPC_LISTENERS,
        shared_agents_port: bool = False,
    ) -> None:
        self._serves = [listener for listener in GRPC_LISTENERS if listener in serves]
        limits = limits or Limits()
        peers = Peers(trust_domain, clock, denied, seen)
        timing = {
            "handshake_timeout": limits.handshake_timeout,
            "keepalive": limits.keepalive,
            "ping_timeout": limits.ping_timeout,
        }
        self.health = Health()
        self.agents = GrpcListener(
            Listener.AGENTS,
            host,
            ports.agents,
            material=material.agents,
            options=channel_options.agent_listener(
                **timing,
                max_connection_age=limits.max_connection_age,
                max_connections=limits.max_agent_connections,
                shared=shared_agents_port,
            ),
            peers=peers,
            metrics=metrics,
            methods=methods,
        )
        self.admin = GrpcListener(
            Listener.ADMIN,
            host,
            ports.admin,
            material=material.admin,
            options=channel_options.admin_listener(**timing, max_connections=ADMIN_CONNECTIONS),
            peers=peers,
            metrics=metrics,
            methods=methods,
        )
        self.enrollment = GrpcListener(
            Listener.ENROLLMENT,
            host,
            ports.enrollment,
            material=material.enrollment,
            options=channel_options.enrollment_listener(**timing, max_connections=ENROLLMENT_CONNECTIONS),
            peers=None,
            metrics=metrics,
            methods=methods,
        )
        self.probes = HealthListener(
            health_host,
            ports.health,
            health=self.health,
            metrics=metrics,
            head_timeout=limits.health_head_timeout,
        )
        self.health.add_to(self.admin.server)
        add_channelz(self.admin.server)
        add_reflection(self.admin.server, {m.service for m in for_listener(Listener.ADMIN).values()})

    async def open(self) -> Ports:
        """Open every port and return them; health stays NOT_SERVING until ``health.serving()``.

        Raises ``StartRefused`` where one cannot be had, and closes those that were opened.
        """
        await self.health.not_serving()
        try:
            opened = {door.listener: await door.open() for door in self._doors()}
            return Ports(
                agents=opened.get(Listener.AGENTS, 0),
                admin=opened.get(Listener.ADMIN, 0),
                enrollment=opened.get(Listener.ENROLLMENT, 0),
                health=await self.probes.open(),
            )
        except BaseException:
            await self.close(timedelta())
            raise

    def rotate(self, material: Material) -> None:
        """Use new material on all ports for new connections; raises ``ValueError`` before it changes any."""
        for part in (material.agents, material.admin, material.enrollment):
            part.check()
        self.agents.rotate(material.agents)
        self.admin.rotate(material.admin)
        self.enrollment.rotate(material.enrollment)

    async def turn_away(self) -> None:
        """Say NOT_SERVING, and close the ports of agents and of enrolment to new connections.

        Administrators and probes may still come: they want to see the end.
        """
        await self.health.not_serving()
        for door in self._doors():
            if door is not self.admin:
                await door.close_port()

    async def close(self, grace: timedelta) -> None:
        """Say NOT_SERVING, close the gRPC ports as ``GrpcListener.close`` does, then that of probes."""
        await self.health.not_serving()
        await asyncio.gather(*(door.close(grace) for door in self._doors()))
        await self.probes.close()

    def _doors(self) -> list[GrpcListener]:
        doors = {door.listener: door for door in (self.agents, self.admin, self.enrollment)}
        return [doors[listener] for listener in self._serves]
