"""Who may speak: join tokens, signing requests, certificates and their end.

``rules`` decides (tokens, the standing of a certificate, SPIFFE ids), ``csr`` reads
signing requests, ``store`` keeps, ``operations`` are the changes that agents' streams
ask of the writer, ``service`` is the door for other rooms, with ``tokens`` and
``administrators`` behind it, and ``handler`` the one for agents that enrol and for
administrators of tokens and identities.

What may not live here: root keys and their files (``trust``), TLS and its contexts
(``transport``), and what an agent is (``agents``, the one room that this one calls).
"""
