"""The tables of the tasks room and all SQL that touches them.

``tables`` declares them, ``creation``, ``expansion`` and ``replaying`` make tasks,
``delivery`` moves them through leases, attempts and results in sets, ``waiting`` and
``ending`` end them for other reasons, ``reading`` answers questions.
"""
