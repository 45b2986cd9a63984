"""The errors that a user is meant to read."""


class GLRError(Exception):
    """Says in one line what is wrong and what to do; scripts print it and exit with `status`."""

    status = 2


class DivergenceError(GLRError):
    """Training has left the finite numbers."""

    status = 3


class UnknownActivationError(GLRError):
    """A model whose activation stands in someone's script, not in glr.network."""


class StoppedError(GLRError):
    """The user, or the system, asked the run to stop, and it did so with its state saved."""

    def __init__(self, message: str, signal_number: int) -> None:
        """Take the status that shells give to a process ended by that signal: 130 for Ctrl-C."""
        super().__init__(message)
        self.status = 128 + signal_number
