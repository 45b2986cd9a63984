"""The errors that a user is meant to read."""


class GLRError(Exception):
    """Says in one line what is wrong and what to do; scripts print it and exit with `status`."""

    status = 2


class DivergenceError(GLRError):
    """Training has left the finite numbers."""

    status = 3
