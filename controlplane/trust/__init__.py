"""Trust: the two roots, what they sign, and where their files lie.

``authority`` signs, ``layout`` names the files of a data folder, ``files`` writes
them so that a crash leaves the old or the new content, and ``setup`` is what
``fleetwright init`` and ``fleetwright identities`` do. Nothing here knows who may
have a certificate: that is the ``identity`` room's decision.
"""
