"""The agent's half of the contract, implemented once.

What lives here: identity and enrolment, the journal, and the engine that holds
the three streams and renews the certificate. It knows no machine: work and
measurements come through ``agent_sim.host.Host``, so the reference agent and
every simulated one run the same code. What does not: reading the environment,
command lines, or anything that touches the host that it runs on, but for the
folders it is given.
"""
