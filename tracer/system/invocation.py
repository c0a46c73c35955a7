"""How awaitscope was called: what a hint must say so that it can be typed as it stands."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

NAME = "awaitscope"


def called_as() -> str:
    """Return the command for the next line to type: by name if PATH has it, else as typed here."""
    typed = sys.argv[0]
    return NAME if shutil.which(NAME) or Path(typed).name != NAME else shlex.quote(typed)


def sudo_line(*words: str) -> str:
    """Return a command as root, by its path: sudo's PATH does not contain a venv.

    Args:
        words: what to call; none: what was called, once more.

    """
    return shlex.join(["sudo", str(Path(sys.argv[0]).absolute()), *(words or sys.argv[1:])])
