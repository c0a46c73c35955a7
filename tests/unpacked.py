"""Interpreters that this machine lacks, unpacked from Debian's archive: nothing is installed.

Such an interpreter is told where its loader and its libraries are; then it runs beside this
machine's own, and its headers and this machine's compiler build the agent for it.
"""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from tests.debian import BuildFailed, building, key_of, mirror, run

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / ".matrix"
SUITES = {
    "python3.9": "bullseye",
    "python3.11": "bookworm",
    "python3.13": "trixie",
    "python3.14": "sid",
    "python3.15": "sid",
    "pypy3": "sid",
}
NEWEST = "python3.15"
_NEEDS = ("mmdebstrap", "patchelf", "unshare")


@cache
def unpacked(name: str, *more: str) -> Path:
    """Return the path of an interpreter of SUITES, unpacked if it is not there yet.

    With `more` it is another one, that has these packages, too. BuildFailed if it cannot be had;
    the text says why.
    """
    if name not in SUITES:
        raise BuildFailed(f"no release of Debian has {name}")
    suite = SUITES[name]
    key = key_of(suite, str(ROOT), inspect.getsource(_unpack) + inspect.getsource(_settle))
    label = "+".join((name, *more))
    with building(PLACE, f"{label}-{key}") as (final, fresh):
        if fresh:
            missing = [need for need in _NEEDS if shutil.which(need) is None]
            if missing or os.geteuid():
                why = f"missing: {', '.join(missing)}" if missing else "not root"
                raise BuildFailed(f"{why}; fix: sudo make test")
            print(f"unpacking {label} of Debian {suite} …", file=sys.stderr)
            _unpack((name if name == "pypy3" else f"{name}-dev", *more), suite, fresh)
            _settle(name, fresh, final)
        return final / "usr" / "bin" / name


def obstacle() -> str | None:
    """Return why the newest CPython cannot be had here; unpack it if it can."""
    try:
        unpacked(NEWEST)
    except (BuildFailed, OSError) as error:  # .matrix may be another user's
        return f"{NEWEST}: {error}"
    return None


def _unpack(packages: tuple[str, ...], suite: str, folder: Path) -> None:
    run(
        # its mounts go with it, also if it is interrupted
        *("unshare", "--mount", "--propagation", "private"),
        *("mmdebstrap", "--mode=root", "--variant=extract", "--quiet"),
        # an archive's copy may lag behind; what is in it is signed all the same
        *('--aptopt=Acquire::Check-Valid-Until "false"', '--aptopt=Acquire::Languages "none"'),
        *('--aptopt=APT::Install-Recommends "false"', "--dpkgopt=path-exclude=/usr/share/doc/*"),
        *(f"--include={','.join(packages)}", suite, folder, mirror()),
    )
    shutil.rmtree(folder / "dev")


def _settle(name: str, folder: Path, final: Path) -> None:
    """Make what lies in `folder` usable at `final`."""
    (loader,) = folder.glob("**/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
    libraries = [final / part / "lib/x86_64-linux-gnu" for part in ("usr", ".")]
    program = (folder / "usr" / "bin" / name).resolve()
    run(
        *("patchelf", "--set-interpreter", final / loader.relative_to(folder)),
        # unlike a RUNPATH, it is also looked up for what the libraries need
        *("--force-rpath", "--set-rpath", ":".join(map(str, libraries)), program),
    )
    # Debian's pyconfig.h refers to this one, by a path that is below /usr/include
    for real in folder.glob(f"usr/include/x86_64-linux-gnu/{name}/pyconfig.h"):
        shutil.copy(real, folder / "usr" / "include" / name)


def make_environment(python: Path | str, folder: Path) -> Path:
    """Make a virtual environment with pip, and return its interpreter.

    Debian takes apart what `venv` would get pip from; so this machine's pip fetches one.
    """
    subprocess.run([python, "-m", "venv", "--clear", "--without-pip", folder], check=True)
    inside = folder / "bin" / "python"
    tell = "import sysconfig as s; print(s.get_python_version(), s.get_path('purelib'))"
    version, site = run(inside, "-c", tell).split(maxsplit=1)
    # not every index says which pip runs on which CPython
    pip = "pip<26" if version == "3.9" else "pip"
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--python-version", version, "--only-binary=:all:", "--target", site.strip(), pip),
    )
    return inside


def install(python: Path, package: str) -> bool:
    """Say whether pip could install a package into an environment."""
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]
    return subprocess.run(pip, capture_output=True, check=False).returncode == 0
