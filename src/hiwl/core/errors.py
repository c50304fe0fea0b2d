"""The one kind of error that users are meant to read."""


class HiwlError(Exception):
    """What is wrong, where, and what to do about it. The command line prints it without a traceback."""
