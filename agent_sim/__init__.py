"""The agents' side of Fleetwright: the reference agent and the simulated fleet.

``protocol`` is the one implementation of the agent's half of the contract;
``agent`` puts it on a real host, ``fleet`` on simulated ones. Nothing here
imports the control plane: what both sides share is the contract.
"""
