"""What the agent makes of statuses."""

from __future__ import annotations

import grpc

from agent_sim.protocol.endings import Cause, Ending
from agent_sim.protocol.failures import Failure


def test_a_status_lost_to_a_write_under_way_leaves_the_connection_as_it_is() -> None:
    lost = Failure(grpc.StatusCode.INTERNAL, message="Internal error from Core")
    assert (lost.name, lost.transport_broken, lost.refuses_identity) == ("STATUS_LOST", False, False)
    assert Ending(Cause.FAILED, lost).keeps_channel


def test_an_internal_error_of_the_server_is_no_lost_status() -> None:
    told = Failure(grpc.StatusCode.INTERNAL, "INTERNAL", "Internal error from Core")
    assert told.name == "INTERNAL"
    assert not Ending(Cause.FAILED, told).keeps_channel
