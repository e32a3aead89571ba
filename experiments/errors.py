"""The ways in which a command ends badly: its input is wrong, or a run failed."""


class InputError(ValueError):
    """The command or its input is wrong. The text is one clear sentence that says what to type; exit code 2."""


class RunFailed(RuntimeError):
    """A run could not be finished (diverged, out of memory, disk full). The text says why and what helps; exit code 1."""


class Diverged(RunFailed):
    """A loss or gradient stopped being finite. The same settings would do it again: a study counts it and does not repeat it."""


class Busy(InputError):
    """Another process carries this run out just now."""
