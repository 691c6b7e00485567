"""Work of the kind ``install``: a released package, verified, put in its place, taken back if not good.

What is fetched and believed lives in ``agent_sim.released``. Here lives what happens on the host:
``ledger`` keeps on disk what is installed and what is being done about it, ``prefix`` and ``dpkg`` are the
two ways in which a package gets into its place, ``detecting`` finds out whether it is there, ``installer``
goes from step to step so that a kill between any two leaves nothing half done, and ``task`` is the whole
from an assignment to its result.
"""
