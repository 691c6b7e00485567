"""The tables of the tasks room and all SQL that touches them.

``tables`` declares them, ``creation`` makes tasks, ``delivery`` moves them
through leases, attempts and results in sets, ``reading`` answers questions.
"""
