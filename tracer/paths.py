"""Where the probes and the demos are: the installed copy, else the checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _find(installed: str, checkout: str) -> Path:
    packaged = _PACKAGE / installed
    return packaged if packaged.is_dir() else _PACKAGE.parent / checkout


def probes_dir() -> Path:
    """Return the folder of the kernel side's C sources."""
    return _find("_probes", "probes")


def demos_dir() -> Path:
    """Return the folder of the demos."""
    return _find("_demos", "demos")
