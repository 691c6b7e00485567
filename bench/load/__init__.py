"""The load: many agents and one administrator in one process, as lean as the contract allows.

It speaks the published contract over mutual TLS and nothing else. The simulated fleet
(``agent_sim.fleet``) proves behaviour and keeps a journal; this one measures, so that what is
measured is the server.
"""
