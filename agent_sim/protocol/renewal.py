"""Renewing the certificate at half its life, with a fresh key, over the live connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

import grpc
from fleetwright.v1 import agent_service_pb2, agent_service_pb2_grpc

from agent_sim.protocol.backoff import Backoff
from agent_sim.protocol.context import EngineContext
from agent_sim.protocol.errors import AgentError, IdentityError
from agent_sim.protocol.failures import failure_of
from agent_sim.protocol.identity import (
    AgentIdentity,
    certificate_signing_request,
    generate_key,
    identity_from_certificate,
)

log = logging.getLogger(__name__)

_LOOK_AGAIN = 600.0
"""Seconds after which the time is looked at again at the latest: a timer does not count time asleep."""
_CALL_TIMEOUT = 30.0


class RenewalTimer:
    """Calls ``renew`` once the certificate in use is half through its life; again after each failure.

    ``renew`` returns True where a new certificate took over.
    """

    def __init__(self, context: EngineContext, renew: Callable[[], Awaitable[bool]]) -> None:
        self._context = context
        self._renew = renew
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._identity: AgentIdentity | None = None
        self._spread = 0.0
        self._backoff: Backoff | None = None

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The renewal under way, or None."""
        return self._task

    def watch(self, identity: AgentIdentity) -> None:
        """Renew ``identity`` when its time has come by the server's clock; called at each Welcome."""
        if identity is self._identity:
            # The server has told the time anew.
            self._schedule(self._time_left())
            return
        # From the issue on: not_before is set back for slow clocks, by more than a short life.
        life = 2 * (identity.not_after - identity.renew_after).total_seconds()
        rng = self._context.rng
        self._identity = identity
        self._spread = rng.uniform(0.0, max(0.0, life * self._context.config.renewal_jitter))
        # A short life must not be slept away: at most a sixteenth of it between two tries.
        cap = timedelta(seconds=max(0.1, min(300.0, life / 16)))
        base = min(cap, timedelta(seconds=5))
        self._backoff = Backoff(base, cap, timedelta(0), rng)
        self._schedule(self._time_left())

    async def stop(self) -> None:
        """Renew no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _time_left(self) -> float:
        if self._identity is None:
            return _LOOK_AGAIN
        due = self._identity.renew_after + timedelta(seconds=self._spread)
        return (due - self._context.server_time.now()).total_seconds()

    def _schedule(self, delay: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = max(0.0, min(delay, _LOOK_AGAIN))
        self._timer = asyncio.get_running_loop().call_later(delay, self._look)

    def _look(self) -> None:
        if self._time_left() > 0:
            self._schedule(self._time_left())
        elif self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        before = self._identity
        renewed = False
        try:
            renewed = await self._renew()
        except IdentityError as error:
            # A full disk may have room again: the certificate in use is good for half its life.
            log.error("certificate not renewed: %s", error)
            self._context.observer.failed("IDENTITY_UNUSABLE", str(error))
        except AgentError as error:
            self._context.fail(error)
            return
        finally:
            self._task = None
        if not renewed and self._backoff is not None and self._identity is before:
            self._schedule(max(0.05, self._backoff.next_delay(0.0).total_seconds()))


async def request_certificate(
    context: EngineContext,
    stub: agent_service_pb2_grpc.AgentServiceAsyncStub,
    identity: AgentIdentity,
) -> AgentIdentity | None:
    """Ask for the next certificate of ``identity``; None where the server did not give one now."""
    key = generate_key()
    request = agent_service_pb2.RenewCertificateRequest(
        certificate_signing_request=certificate_signing_request(key, identity.agent_id)
    )
    try:
        response = await stub.RenewCertificate(request, timeout=_CALL_TIMEOUT)
        return identity_from_certificate(
            identity.agent_id, identity.spiffe_id, key, response.certificate, identity.agent_addresses
        )
    except grpc.aio.AioRpcError as error:
        failure = failure_of(error)
        context.observer.failed(failure.name, failure.message)
        log.warning("certificate not renewed: %s", failure.name)
    except IdentityError as error:
        context.observer.failed("IDENTITY_UNUSABLE", str(error))
        log.error("certificate not renewed: %s", error)
    return None
