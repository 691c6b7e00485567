"""Trust: the two roots, what they sign, and where their files lie; and the keys that release packages.

``authority`` signs, ``layout`` names the files of a data folder, ``files`` writes
them so that a crash leaves the old or the new content, and ``setup`` is what
``fleetwright init`` and ``fleetwright identities`` do. Nothing here knows who may
have a certificate: that is the ``identity`` room's decision.

For packages, ``keys`` are Ed25519 keys in files, ``statements`` and ``dsse`` write and
sign what is attested, ``tuf`` is the repository's side of TUF, and ``bundles`` exports
the evidence. Reading it is ``fleetwright.verify``'s, on this side too.
"""
