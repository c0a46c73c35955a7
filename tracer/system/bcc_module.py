"""Find Debian's bcc (the BPF Compiler Collection), also from inside a virtual environment.

`bcc` on PyPI is an unrelated package (a lattice); ours is Debian's python3-bpfcc, pure Python
over libbcc in the system's dist-packages. Only that one package is loaded from there.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from tracer.errors import Prerequisite

if TYPE_CHECKING:
    from types import ModuleType

DIST_PACKAGES = Path("/usr/lib/python3/dist-packages")
FIX = "sudo apt-get install python3-bpfcc"


def find_bcc(dist_packages: Path = DIST_PACKAGES) -> tuple[ModuleType, str, Path]:
    """Load the BPF Compiler Collection and return (module, version, folder).

    Raises:
        Prerequisite: there is none, or the only `bcc` is PyPI's unrelated package.

    """
    for folder in (dist_packages, *map(Path, sys.path)):
        init = folder / "bcc" / "__init__.py"
        if init.is_file() and "class BPF" in init.read_text(errors="replace"):
            module = _load(init)
            return module, str(getattr(module, "__version__", "unknown")), init.parent
    wrong = PathFinder.find_spec("bcc", sys.path)
    if wrong is not None:
        raise Prerequisite(
            "the installed package 'bcc' is not the BPF Compiler Collection (it has no BPF class)",
            f"pip uninstall bcc; {FIX}",
        )
    raise Prerequisite("bcc, the BPF Compiler Collection, is not installed", FIX)


def _load(init: Path) -> ModuleType:
    loaded = sys.modules.get("bcc")
    if loaded is not None and getattr(loaded, "__file__", None) == str(init):
        return loaded
    for name in [n for n in sys.modules if n == "bcc" or n.startswith("bcc.")]:
        del sys.modules[name]
    spec = importlib.util.spec_from_file_location(
        "bcc", init, submodule_search_locations=[str(init.parent)]
    )
    if spec is None or spec.loader is None:
        raise Prerequisite(f"{init} cannot be loaded", FIX)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bcc"] = module
    try:
        with warnings.catch_warnings():
            # bcc 0.26 has escapes that CPython 3.12 and later complain about; not ours to mend
            warnings.simplefilter("ignore")
            spec.loader.exec_module(module)
    except Exception as error:
        # a module that is there by half would be taken for the real one at the next call
        sys.modules.pop("bcc", None)
        raise Prerequisite(f"bcc cannot be loaded: {error}", FIX) from error
    return module
