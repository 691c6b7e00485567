"""Databases: engines, migrations, the unit of work and the group-commit writer.

What lives here knows SQLAlchemy and no room. A room's ``store.py`` declares its
tables on ``schema.metadata`` and writes through a ``UnitOfWork``; what agents
stream goes through the ``Writer``, which commits many operations at once.
"""
