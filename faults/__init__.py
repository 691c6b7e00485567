"""Breaks the real product and counts what that lost and doubled: `make faults`."""
