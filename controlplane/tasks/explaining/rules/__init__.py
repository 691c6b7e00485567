"""What is said of a task or an agent, from facts alone. Pure: no I/O, and the clock is passed in.

Invariants, tested in ``tests/unit/tasks``:

* Each state has a reason and a next step, in every circumstance.
* An instant that is promised is never one at which something else decides earlier.
* A missing observation is never given as a reason.

States are the contract's names without their prefix, so that one which this module does not know is
explained by what the task itself says of it.
"""

from controlplane.tasks.explaining.rules.agents import explain_agent
from controlplane.tasks.explaining.rules.facts import (
    AgentFacts,
    AttemptFacts,
    OpenWork,
    TaskFacts,
    WindowFacts,
)
from controlplane.tasks.explaining.rules.said import Code, Explanation, NextStep, Remedy, Sentence
from controlplane.tasks.explaining.rules.tasks import explain_task

__all__ = [
    "AgentFacts",
    "AttemptFacts",
    "Code",
    "Explanation",
    "NextStep",
    "OpenWork",
    "Remedy",
    "Sentence",
    "TaskFacts",
    "WindowFacts",
    "explain_agent",
    "explain_task",
]
