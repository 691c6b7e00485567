"""The repository's side of TUF (https://theupdateframework.github.io/specification/): who may release what.

The roles ``root`` and ``targets`` have thresholds of keys that are offline; ``snapshot``, ``timestamp`` and a
role for each channel have keys of the server's. ``ceremony`` makes the first keys and metadata,
``publishing`` goes from one state to the next, ``rotation`` takes in what was signed offline, ``expiry`` says
what ends soon.

Nothing here stores: a publication is a function of the state before, and gives the state after with the files
that are new. Whoever stores does so in one transaction, under a lock that lets one publish at a time: two
publications of one state would give two different files the same version.
"""
