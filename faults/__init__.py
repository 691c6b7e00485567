"""Breaks the real product and counts what that lost and doubled: `make faults`."""

import os

# The harness starts processes while calls are under way, and gRPC's own handlers of fork() would touch their
# connections in the child. It never forks without an exec, so it needs none of them. Read before the import.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
