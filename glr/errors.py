"""The one error that a user is meant to read."""


class GLRError(Exception):
    """Says in one line what is wrong and what to do; scripts print it and exit with status 2."""
