"""What a look at a database raises."""


class DatabaseUnreadableError(Exception):
    """There is no database that can be read; the text is the database's own."""
