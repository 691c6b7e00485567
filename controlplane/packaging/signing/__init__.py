"""What stage SIGN stands on for packages whose format has a signature of its own; so far that is the .deb.

DSSE, which every package gets, is made in ``controlplane/trust``. Here an OpenPGP signature is put into a
.deb where debsig-verify looks for it, and then verified by an implementation that did not make it. What was
not verified is never called verified.
"""
