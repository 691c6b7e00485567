"""The engine of one agent: it holds the session until it is told to stop."""

from __future__ import annotations

import asyncio
import random

from agent_sim.host import Host
from agent_sim.protocol.clock import Clock
from agent_sim.protocol.config import AgentConfig
from agent_sim.protocol.identity import IdentityStore
from agent_sim.protocol.journal import Journal
from agent_sim.protocol.observer import Observer


class Agent:
    """One agent on one host. Several may share a process and its event loop."""

    def __init__(
        self,
        config: AgentConfig,
        host: Host,
        journal: Journal,
        identities: IdentityStore,
        clock: Clock,
        rng: random.Random,
        observer: Observer | None = None,
    ) -> None:
        self._config = config

    async def run(self, stop: asyncio.Event) -> None:
        """Hold the session, do the work and renew the certificate until ``stop`` is set.

        Returns after an orderly leave, with no task of its own left; the journal
        stays open and is the caller's to close. Raises EnrollmentRequiredError,
        SessionReplacedError, ProtocolVersionError, IdentityError or JournalError.
        """
        raise NotImplementedError
