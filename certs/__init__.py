"""Development identities: roots, servers, agents and operators, and every bad one that a door must refuse.

For development and tests alone. What signs a real fleet's certificates is `controlplane.identity`, which
shares no code with this package, so that tests do not check the server against itself. No key that is
made here is ever committed; time is always an argument.
"""
