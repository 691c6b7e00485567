"""What the guard and the job do to themselves before the first untrusted byte, and how it is observed.

Runs in the subprocess alone, never in the server. ``applying`` is the order of the steps; each says why it
did not work instead of raising, and ``observing`` believes none of them: it looks and tries.
"""
