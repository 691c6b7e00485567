"""The reference agent: the protocol engine on a real host.

Here lives what a host can do (inventory, scripts, logs, echo), what it measures,
the policy file by which its owner bounds both, and the ``fleetwright-agent``
command. How the agent speaks to a server lives in ``agent_sim.protocol``; this
package implements the ``Host`` port and knows nothing of streams.
"""
