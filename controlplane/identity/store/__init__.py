"""The tables of the identity room and all SQL that touches them.

``tables`` declares them, ``tokens`` keeps who may enrol, ``certificates`` what was
issued, and ``denials`` the serial numbers that are refused at the door.
"""
