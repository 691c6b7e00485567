"""The processes of the installation: which there are, and which of them live.

Each process has a row with a lease that it renews. A process whose lease lapsed is gone
for all others, whatever became of it: its sessions are closed and its schedules taken
over. One that comes back after that begins a new lease under its old id, and claims what
is still its own. Holds nothing of agents: what a lapse means for them, ``agents`` says.
"""
