"""The room's tables, and all SQL that touches them.

``tables`` declares them, ``selecting`` turns filters into conditions, ``reading``
and ``registry`` serve administrators, ``presence`` what streams and schedules change
of many agents at once. Every function takes the connection or the unit of work of
its caller; none opens or ends a transaction.
"""
