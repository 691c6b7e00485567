"""The simulated fleet: many agents in one process, each with its own key, certificate and connection.

What lives here: simulated hosts and their profiles, the fleet that enrols and
runs them, and ``fleetwright-sim``. What does not: any protocol; that is
``agent_sim.protocol``, the same code as the reference agent's. Nothing here
touches the machine that it runs on, and every simulated result says so.
"""
