"""The one composition root: builds a server from its settings, starts it, and ends it.

Who may call whom stands here and in ``.importlinter``. What must flow against that
direction is a hook, wired in ``rooms`` and ``server``: the deletion of an agent ends its
tasks, denies its certificates and closes its streams.

``engines`` and ``rooms`` are what every process has; ``gateway``, ``api`` and ``worker`` are
the roles; ``server`` puts them together, and ``serving`` runs that as a program, or, for several
gateways, a ``supervisor`` of such programs.
"""

from __future__ import annotations

from controlplane.bootstrap.part import Part, Place
from controlplane.bootstrap.server import Server
from controlplane.bootstrap.serving import serve

__all__ = ["Part", "Place", "Server", "serve"]
