"""The two ways in which a command ends badly: its input is wrong, or a run failed."""


class InputError(ValueError):
    """The command or its input is wrong. The text is one clear sentence that says what to type; exit code 2."""


class RunFailed(RuntimeError):
    """A run could not be finished (diverged, out of memory, disk full). The text says why and what helps; exit code 1."""
