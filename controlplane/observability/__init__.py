"""What the process says of itself: logs, metrics and the lag of its event loop.

Nothing here decides anything. Metrics live in one registry that is passed
around; logs go to standard error, and a processor keeps secrets out of both.
"""
