"""Parts of messages that several handlers speak: instants, durations, hosts, certificates.

What rooms bring is named here only by its shape, for transport knows no room.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, overload

from fleetwright.v1 import enrollment_service_pb2, work_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


@overload
def timestamp(micros: int) -> Timestamp: ...
@overload
def timestamp(micros: int | None) -> Timestamp | None: ...
def timestamp(micros: int | None) -> Timestamp | None:
    """Return the message of an instant in microseconds since the Unix epoch; None stays None."""
    if micros is None:
        return None
    stamp = Timestamp()
    stamp.FromMicroseconds(micros)
    return stamp


def duration(micros: int) -> Duration:
    """Return the message of a duration in microseconds."""
    message = Duration()
    message.FromMicroseconds(micros)
    return message


class Host(Protocol):
    """Facts of a host, as rooms keep them."""

    @property
    def hostname(self) -> str: ...  # noqa: D102 # the contract's HostFacts says what each is
    @property
    def os_family(self) -> str: ...  # noqa: D102
    @property
    def os_name(self) -> str: ...  # noqa: D102
    @property
    def os_version(self) -> str: ...  # noqa: D102
    @property
    def kernel_version(self) -> str: ...  # noqa: D102
    @property
    def architecture(self) -> str: ...  # noqa: D102


def host_fields(host: Host) -> dict[str, str]:
    """Return the facts of a host by name, from the contract's message or a room's record to the other."""
    return {
        "hostname": host.hostname,
        "os_family": host.os_family,
        "os_name": host.os_name,
        "os_version": host.os_version,
        "kernel_version": host.kernel_version,
        "architecture": host.architecture,
    }


def host_facts(host: Host) -> work_pb2.HostFacts:
    """Return the message of a host."""
    return work_pb2.HostFacts(**host_fields(host))


class IssuedLike(Protocol):
    """A certificate that was issued, with instants in microseconds since the Unix epoch."""

    @property
    def chain(self) -> Sequence[bytes]: ...  # noqa: D102 # the contract's IssuedCertificate says what each is
    @property
    def trust_bundle(self) -> Sequence[bytes]: ...  # noqa: D102
    @property
    def not_before(self) -> int: ...  # noqa: D102
    @property
    def not_after(self) -> int: ...  # noqa: D102
    @property
    def renew_after(self) -> int: ...  # noqa: D102


def issued_certificate(issued: IssuedLike) -> enrollment_service_pb2.IssuedCertificate:
    """Return the message for a certificate that enrolment or renewal issued."""
    return enrollment_service_pb2.IssuedCertificate(
        chain=issued.chain,
        trust_bundle=issued.trust_bundle,
        not_before=timestamp(issued.not_before),
        not_after=timestamp(issued.not_after),
        renew_after=timestamp(issued.renew_after),
    )
