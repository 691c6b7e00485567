"""Trusting a package by its evidence, without asking the server that delivered it.

Agents, the command line and auditors share this. What is believed follows from one file, the trusted root
that an agent got when it enrolled: ``tuf_client`` follows it to the package that is released now and to the
keys of those who attest; ``envelopes`` and ``statements`` read what they attested; ``chain`` and ``bundle``
say, line by line, which part of the evidence holds, is missing or is wrong.

Needs ``pip install fleetwright[verify]``. All that is read here was written by others: it is bounded, and
every refusal is a ``VerificationError`` of ``errors`` that says what to do. Nothing here reads a clock that
was not given.
"""
