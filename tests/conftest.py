"""What holds for every test."""

import signal

# A shell without job control starts what it puts in the background with SIGINT ignored, and every child
# inherits that: programs under test could then not be ended by Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
