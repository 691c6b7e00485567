"""Copies of a data folder in one file: taken while the server runs, checked, and put back.

``taking`` makes a backup, ``restoring`` puts one in place, ``archive`` and ``manifest`` are
what both agree on: a tar file, compressed with gzip if wanted, of which the first member
says what the others are.
"""
