"""Which identity an agent shows: the current one, or the next one while it takes over."""

from __future__ import annotations

import logging

from agent_sim.protocol.clock import ServerTime
from agent_sim.protocol.errors import EnrollmentRequiredError, IdentityError
from agent_sim.protocol.failures import Failure
from agent_sim.protocol.identity import AgentIdentity, IdentityStore

log = logging.getLogger(__name__)


class IdentityInUse:
    """Follows the two identities of a store.

    A next identity is tried before the current one: where the process fell
    after the server first saw the next one, the current one is void.
    """

    def __init__(self, store: IdentityStore, clock: ServerTime, tries: int) -> None:
        self._store = store
        self._clock = clock
        self._tries = tries
        self._refusals = 0
        self._identity: AgentIdentity | None = None

    @property
    def current(self) -> AgentIdentity:
        """The identity to show. Raises EnrollmentRequiredError where there is none."""
        if self._identity is None:
            raise EnrollmentRequiredError("this agent has no identity: enrol it first")
        return self._identity

    def begin(self) -> AgentIdentity:
        """Load the identity to begin with. Raises EnrollmentRequiredError or IdentityError."""
        try:
            self._identity = self._store.next() or self._store.current()
        except IdentityError as error:
            self._identity = self._store.current()
            if self._identity is None:
                raise
            # The server has seen it at most once; the current one is tried, and a renewal makes another.
            log.error("next identity set aside: %s", error)
            self._store.discard_next()
        return self.current

    def store_next(self, identity: AgentIdentity) -> None:
        """Keep a renewed identity, durably, before it is used. Raises IdentityError."""
        if self._identity is not None and self._store.next() == self._identity:
            # Promoting it failed at its Welcome; what comes next must not replace the only good one.
            self._store.promote()
        self._store.save_next(identity)

    def accepted(self, identity: AgentIdentity) -> bool:
        """Note that the server welcomed ``identity``; True where that promoted it. Raises IdentityError."""
        self._refusals = 0
        self._identity = identity
        if self._store.next() != identity:
            return False
        self._store.promote()
        return True

    def prefer_next(self) -> None:
        """Show the next identity, where there is one: the server may have seen it."""
        self._identity = self._store.next() or self._identity

    def discard_next(self) -> None:
        """Forget a renewed identity that the server refused."""
        self._store.discard_next()

    def refused(self, failure: Failure) -> bool:
        """Note a failure; True where it is the identity that was refused.

        Turns to the other identity, where there are two: the next one may have been
        refused, or the current one may be void because the server has seen the
        next one. Raises EnrollmentRequiredError after too many refusals in a row.
        """
        expired = self.current.not_after < self._clock.now()
        # An expired certificate fails the handshake, and that looks like a broken connection.
        if not failure.refuses_identity and not (failure.transport_broken and expired):
            return False
        state = f"expired at {self.current.not_after:%Y-%m-%d %H:%M:%S} UTC" if expired else failure.name
        if not failure.refuses_identity:
            # Never final: an outage looks the same where this host's clock is ahead.
            log.warning(
                "no connection, and the certificate %s by this host's clock: enrol again if so", state
            )
        else:
            self._refusals += 1
        if self._refusals >= self._tries:
            raise EnrollmentRequiredError(
                f"the server does not accept the identity of agent {self.current.agent_id} ({state}): "
                "enrol it again"
            )
        current, following = self._store.current(), self._store.next()
        other = following if self._identity == current else current
        self._identity = other or self._identity
        return True
