"""The one MetaData that every room declares its tables on."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, MetaData, Table

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

commit_counter = Table(
    "commit_counter",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("value", BigInteger, nullable=False),
    comment="One row: the number of the last transaction that changed something that is watched.",
)
