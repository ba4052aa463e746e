"""How commands end."""

from __future__ import annotations

OK, SOME_FAILED, UNUSABLE, NOT_STARTED = 0, 1, 2, 3
INTERRUPTED, READER_GONE = 130, 141
"""What shells show for a process that SIGINT or SIGPIPE ended: 128 and the signal's number."""
EXITS = {
    OK: "everything is done",
    SOME_FAILED: "some files were refused, or all; standard error says which and why",
    UNUSABLE: "wrong usage or wrong settings, or the work cannot begin or go on: no files, no "
    "model, no server, results that exist already or cannot be written",
    NOT_STARTED: "the server did not start: its port may be in use",
    INTERRUPTED: "stopped by Ctrl-C, cohorts and watches by SIGTERM as well; what is finished "
    "has been written",
    READER_GONE: "whoever read standard output has left",
}
"""Every exit code and what it means; the help and ``docs/using.md`` say the same."""


class UsageError(Exception):
    """What was asked for can't be done at all; each argument is a sentence of its own."""


def in_words(error: OSError) -> str:
    """What the system refused, object first, without its error number."""
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return ": ".join([*names, error.strerror or str(error) or type(error).__name__])
