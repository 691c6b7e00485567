"""Enrolment tokens: what administrators do with them, and the judgement of one that is shown."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta

import structlog

from controlplane.callers import Caller
from controlplane.clock import Clock, duration_micros, to_micros
from controlplane.errors import NotFound, ResourceExhausted, ServiceError, Unauthenticated
from controlplane.identity import rules
from controlplane.identity.listing import NewestFirst
from controlplane.identity.records import NewToken, TokenPage, TokenRecord
from controlplane.identity.rules import JoinToken, TokenState
from controlplane.identity.store import tokens
from controlplane.identity.store.tokens import Connection
from controlplane.storage.database import Database
from controlplane.storage.slices import Slice, delete_in_slices
from controlplane.storage.unit_of_work import UnitOfWork

DEFAULT_TTL = timedelta(hours=1)
PRUNE_STEP = 1_000
"""Tokens, or uses of them, that one transaction deletes."""

_log = structlog.get_logger(__name__)


class EnrollmentTokens:
    """Use cases around enrolment tokens.

    ``root_digest`` is that of the agents' root, which every join token carries;
    ``page_secret`` signs page tokens.
    """

    def __init__(self, database: Database, clock: Clock, root_digest: str, page_secret: bytes) -> None:
        self._database = database
        self._clock = clock
        self._root_digest = root_digest
        self._listing = NewestFirst(
            database,
            "enrollment_tokens",
            page_secret,
            tokens.page,
            lambda token: (token.create_time, token.token_id),
        )

    async def create(
        self,
        caller: Caller,
        *,
        description: str = "",
        ttl: timedelta | None = None,
        max_uses: int = 0,
        allow_reenrollment: bool = False,
        labels: Mapping[str, str] | None = None,
    ) -> NewToken:
        """Make a token, for ``DEFAULT_TTL`` and one use unless told otherwise.

        The limits of all fields are the contract's, checked where the request comes in.
        """
        now = to_micros(self._clock.now())
        token_id = "".join(secrets.choice(rules.TOKEN_ID_ALPHABET) for _ in range(rules.TOKEN_ID_LENGTH))
        joined = JoinToken(token_id, secrets.token_bytes(rules.SECRET_BYTES), self._root_digest)
        token = TokenRecord(
            token_id=token_id,
            secret_digest=rules.secret_digest(joined.secret),
            description=description,
            labels=dict(labels or {}),
            max_uses=max_uses or 1,
            use_count=0,
            allow_reenrollment=allow_reenrollment,
            creator=caller.spiffe_id,
            create_time=now,
            expire_time=now + duration_micros(DEFAULT_TTL if ttl is None else ttl),
            revoke_time=None,
        )
        async with self._database.unit_of_work() as work:
            await tokens.add(work, token)
        # Not "token": the log blanks what goes by that name.
        _log.info("enrollment token created", enrollment=token_id, uses=token.max_uses, by=caller.spiffe_id)
        return NewToken(token, joined.write())

    async def list(self, *, page_size: int, page_token: str) -> TokenPage:
        """Return a page of tokens, newest first; ``page_size`` 0 is the default.

        Raises ``InvalidArgument`` PAGE_TOKEN_INVALID.
        """
        return TokenPage(*await self._listing.page(page_size, page_token))

    async def revoke(self, caller: Caller, token_id: str) -> TokenRecord:
        """Revoke a token and return it; a second time changes nothing.

        Raises ``NotFound`` ENROLLMENT_TOKEN_UNKNOWN.
        """
        async with self._database.unit_of_work() as work:
            await tokens.revoke(work, token_id, to_micros(self._clock.now()))
            token = await tokens.find(work.connection, token_id)
        if token is None:
            raise NotFound(
                "ENROLLMENT_TOKEN_UNKNOWN",
                f"name: there is no enrollmentTokens/{token_id}; list the tokens to see which there are",
            )
        _log.info("enrollment token revoked", enrollment=token_id, by=caller.spiffe_id)
        return token

    async def prune(self, before: datetime) -> int:
        """Delete tokens that were expired or revoked before an instant; returns how many.

        One that is used up goes when it expires: until then it answers an agent that sends its
        request again. Who shows one that is deleted gets TOKEN_UNKNOWN.
        """
        over = to_micros(before)

        async def some(work: UnitOfWork) -> Slice:
            if await tokens.forget_uses(work, over, PRUNE_STEP) == PRUNE_STEP:
                return Slice(0, more=True)
            deleted = await tokens.forget(work, over, PRUNE_STEP)
            return Slice(deleted, more=deleted == PRUNE_STEP)

        return await delete_in_slices(self._database, some)

    async def judge(
        self, connection: Connection, joined: JoinToken | None, agent_id: str, now: datetime
    ) -> TokenRecord:
        """Return the token that an agent shows, if it may let that agent in.

        An exhausted one that has let the same agent in passes: it may be the same request
        sent again, which only the agent's key tells. Raises ``Unauthenticated`` TOKEN_UNKNOWN,
        TOKEN_REVOKED or TOKEN_EXPIRED, and ``ResourceExhausted`` TOKEN_EXHAUSTED.
        """
        token = None if joined is None else await tokens.find(connection, joined.token_id)
        stored = None if token is None else token.secret_digest
        known = rules.secret_matches(b"" if joined is None else joined.secret, stored)
        if token is None or not known:
            raise Unauthenticated(
                "TOKEN_UNKNOWN", "join_token: no enrollment token has this id and secret; ask for a new one"
            )
        state = token.state(to_micros(now))
        if state is TokenState.EXHAUSTED and await tokens.was_used_by(connection, token.token_id, agent_id):
            return token
        if state is not TokenState.ACTIVE:
            raise token_refusal(state)
        return token


def token_refusal(state: TokenState) -> ServiceError:
    """Return the error for a token that lets no one in."""
    if state is TokenState.REVOKED:
        return Unauthenticated("TOKEN_REVOKED", "join_token: was revoked; ask for a new one")
    if state is TokenState.EXPIRED:
        return Unauthenticated("TOKEN_EXPIRED", "join_token: has expired; ask for a new one")
    return ResourceExhausted(
        "TOKEN_EXHAUSTED", "join_token: was used as often as it allows; ask for a new one"
    )
