"""What a package says of itself, one file for each type, and never from its name alone.

A name that was declared beside the package must agree with what it says inside; where a format says nothing
of itself, as a plain archive, the declared name is all there is.
"""
