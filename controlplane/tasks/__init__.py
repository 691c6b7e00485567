"""Work for agents: creation, leases, attempts, results, cancellation, time limits.

What lives here decides what becomes of a task and keeps it durable. It does not
know streams (``sessions`` carries assignments and results), nor what a task's
spec means: that is bytes for the agent.
"""
