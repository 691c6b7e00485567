"""OpenPGP signatures of unsigned packages: the first one that is committed stands.

Such a signature holds a time and salt, so that signing again gives other bytes. Whoever runs again takes the
one that stands, and comes to the same final bytes. It is kept in ``package_attestations`` under the digest of
the unsigned bytes, by key: another key's is another signature.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.packaging.store.tables import package_attestations
from controlplane.storage.backends import insert_into
from controlplane.storage.unit_of_work import UnitOfWork


def kind_of(fingerprint: str) -> str:
    """Return under which kind a key's signatures are kept."""
    return f"openpgp:{fingerprint}"


async def find_signature(connection: AsyncConnection, unsigned: str, fingerprint: str) -> bytes | None:
    """Return the signature of a key that stands for an unsigned digest, or None."""
    table = package_attestations.c
    found = await connection.execute(
        select(table.envelope).where(table.package == unsigned, table.kind == kind_of(fingerprint))
    )
    row = found.first()
    return bytes(row.envelope) if row else None


async def keep_signature(
    work: UnitOfWork, unsigned: str, fingerprint: str, signature: bytes, now: int
) -> bytes:
    """Keep a signature unless one stands; returns the one that stands. ``now`` is in microseconds."""
    row = {
        "package": unsigned,
        "kind": kind_of(fingerprint),
        "sha256": hashlib.sha256(signature).hexdigest(),
        "envelope": signature,
        "create_time": now,
    }
    fresh = insert_into(work.connection, package_attestations).on_conflict_do_nothing()
    await work.connection.execute(fresh, [row])
    standing = await find_signature(work.connection, unsigned, fingerprint)
    return signature if standing is None else standing
