"""The errors that people see: one sentence, the fix, the contract's exit code."""

from __future__ import annotations


class AwaitscopeError(Exception):
    """Base of all errors with a message for people; `fix` says what to do next."""

    exit_code = 1

    def __init__(self, message: str, fix: str | None = None) -> None:
        """Store the message and the fix; neither ends with a newline."""
        super().__init__(message)
        self.message = message
        self.fix = fix


class Usage(AwaitscopeError):
    """The command line cannot be served as given."""

    exit_code = 2


class Prerequisite(AwaitscopeError):
    """Something that tracing needs is missing on this machine."""

    exit_code = 4


class TargetGone(AwaitscopeError):
    """The target vanished or is no Python process."""

    exit_code = 5


class TraceUnreadable(AwaitscopeError):
    """The trace is no trace, damaged beyond recovery, or from a newer version."""

    exit_code = 6


class TracerFailed(AwaitscopeError):
    """`run` failed before or beside the command that it runs."""

    exit_code = 125


class CannotExecute(AwaitscopeError):
    """The command was found but cannot be executed."""

    exit_code = 126


class CommandNotFound(AwaitscopeError):
    """There is no such command."""

    exit_code = 127
