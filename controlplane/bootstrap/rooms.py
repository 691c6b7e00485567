"""The capability rooms, which every process has: what differs by role is who calls them."""

from __future__ import annotations

import structlog

from controlplane.agents import operations as agents_operations
from controlplane.agents.service import AgentsService
from controlplane.bootstrap import policies
from controlplane.bootstrap.engines import Engines
from controlplane.bootstrap.packaging import PackagingRoom, Stages
from controlplane.identity import operations as identity_operations
from controlplane.identity.service import DENIALS, IdentityPolicy, IdentityService
from controlplane.processes.service import LeaseTimes, Member, Processes
from controlplane.tasks.delivery import Delivery
from controlplane.tasks.explaining.service import ExplainingService
from controlplane.tasks.ledger.service import LedgerService
from controlplane.tasks.service import TasksService
from controlplane.telemetry import operations as telemetry_operations
from controlplane.telemetry.service import TelemetryService
from controlplane.trust.adoption import Adoption, load_adoption

_log = structlog.get_logger(__name__)


class Rooms:
    """The services of a process, with the hooks between them."""

    def __init__(self, engines: Engines, stages: Stages | None = None) -> None:
        settings, database, writer, clock = (
            engines.settings,
            engines.database,
            engines.writer,
            engines.clock,
        )
        self.agents = AgentsService(
            database, engines.wakeups, clock, policies.health_limits(settings), engines.secret
        )
        identity_policy = IdentityPolicy(
            settings.agent_certificate_life, settings.advertised_agent_addresses, _adoption(engines)
        )
        self.identity = IdentityService(
            database,
            writer,
            self.agents,
            engines.trust.agents,
            engines.trust.operators,
            clock,
            identity_policy,
            engines.secret,
        )
        self.tasks = TasksService(
            database,
            writer,
            self.agents,
            engines.wakeups,
            clock,
            engines.secret,
            engines.wakeups.wake,
            lambda agent_ids: engines.wakeups.wake(agent_ids, stopping=True),
            settings.batch_slice,
        )
        self.delivery = Delivery(
            settings.lease_time, self.tasks.changed, None if engines.alone else self.agents
        )
        self.packaging = PackagingRoom(engines, self.agents, self.tasks, self.delivery, stages)
        self.identity.trusted_root = self.packaging.delivered_root.current
        self.ledger = LedgerService(database, self.agents, engines.secret)
        self.explaining = ExplainingService(database, self.agents, clock)
        self.telemetry = TelemetryService(database, engines.wakeups, self.agents, engines.secret)
        self.processes = Processes(database, self.agents, clock)
        self.member = Member(
            database,
            self.agents,
            clock,
            engines.process,
            LeaseTimes(settings.process_renewal, settings.process_lease),
            alone=engines.alone,
        )
        self.delivery.register(writer)
        agents_operations.register_operations(
            writer,
            engines.wakeups,
            [self.delivery.lose_journals],
            refuse_clones=settings.clone_policy == "refuse",
        )
        identity_operations.register_operations(writer, self.agents)
        telemetry_operations.register_operations(writer, engines.wakeups, self.agents)
        self.identity.after_revoke.append(lambda _: engines.wakeups.notify(DENIALS))
        self.identity.administrators.after_revoke.append(lambda: engines.wakeups.notify(DENIALS))
        self.agents.on_delete.append(self.tasks.cancel_for_agent)
        self.agents.on_delete.append(self.identity.agent_deleted)


def _adoption(engines: Engines) -> Adoption | None:
    found = load_adoption(engines.settings.data_dir)
    if found is None or found.until < engines.clock.now():
        return None
    _log.warning("unknown certificates of enrolled agents are adopted", until=found.until.isoformat())
    return found
