"""The tables of the identity room and all SQL that touches them.

``tables`` declares them, ``tokens`` keeps who may enrol, ``certificates`` what was
issued to agents, ``identities`` what administrators have, and ``denials`` the serial
numbers that are refused at the door.
"""
