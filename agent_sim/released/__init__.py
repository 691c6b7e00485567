"""Packages as a server releases them: fetched through the agent's own session, and judged by the agent's own
trusted root.

Shared by the reference agent and the simulated fleet, which differ only in what they do with a package that
is good. What is believed, and why, stands in ``fleetwright.verify``; here lives how its files come, how a
download goes on where it was cut, and under which stable word a refusal is reported.
"""
