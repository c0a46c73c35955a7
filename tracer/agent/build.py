"""Compile the agent against the headers of one Python, once, into a cache.

Runs inside awaitscope, inside the traced process (to find the cached file) and as a script of
the traced process's own interpreter (`python -I -S build.py CACHE_DIR`): no dependency, Python
3.9 and later, and nothing imported that a cache hit does not need.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_HERE = os.path.dirname(os.path.abspath(__file__))
_RECORD_DIRS = (
    os.path.join(os.path.dirname(_HERE), "_probes", "include"),
    os.path.join(os.path.dirname(os.path.dirname(_HERE)), "probes", "include"),
)
REASONS = ("no_compiler", "no_headers", "build_failed", "unsupported_python", "unsafe_cache")
LIGHT = ("no_compiler", "no_headers", "build_failed", "unsafe_cache")  # then the one in Python runs
OLDEST, NEWEST = (3, 9), (3, 15)
_FIRST_EXIT_CODE = 10  # of the script: 10 is REASONS[0]


class BuildError(Exception):
    """The agent cannot be built; `code` is one of REASONS."""

    def __init__(self, code: str, detail: str) -> None:
        """Store the reason's code and a line for people."""
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


def record_dir() -> str:
    """Return the folder that holds record.h."""
    for path in _RECORD_DIRS:
        if os.path.isdir(path):
            return path
    raise BuildError("build_failed", "record.h is missing")


def sources() -> list[str]:
    """Return the paths of the C sources and headers, sorted."""
    names = sorted(os.listdir(_HERE))
    return [os.path.join(_HERE, name) for name in names if name.endswith((".c", ".h"))]


def source_hash() -> str:
    """Return 12 hex digits that stand for the C sources and record.h."""
    import hashlib

    digest = hashlib.sha256()
    for path in [*sources(), os.path.join(record_dir(), "record.h")]:
        with open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()[:12]


def check_python() -> None:
    """Raise BuildError if the running Python is none that the agent can live in."""
    name, version = sys.implementation.name, ".".join(map(str, sys.implementation.version[:3]))
    if name != "cpython":
        raise BuildError("unsupported_python", f"{name} {version}, not CPython")
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        known = "{}.{} to {}.{}".format(*OLDEST, *NEWEST)
        raise BuildError("unsupported_python", f"CPython {version}; the agent knows {known}")
    if "t" in getattr(sys, "abiflags", ""):
        raise BuildError("unsupported_python", "free-threaded build")


def cache_key(source: str | None = None) -> str:
    """Return the file name of the agent built for the running Python.

    `source` is `source_hash()` if the caller knows it: computing it costs milliseconds.
    """
    check_python()
    return "-".join(
        (
            "awaitscope_agent",
            source or source_hash(),
            str(sys.implementation.cache_tag),
            f"{sys.hexversion:08x}{getattr(sys, 'abiflags', '')}",
            os.uname().machine + ".so",
        )
    )


def check_trusted(path: str) -> None:
    """Raise BuildError if somebody else could have written what is at `path`."""
    found = os.lstat(path)
    mine = found.st_uid in (0, os.geteuid())
    if not mine or found.st_mode & 0o002 or (found.st_mode & 0o170000) == 0o120000:
        raise BuildError("unsafe_cache", path)


def cached(cache_dir: str, source: str | None = None) -> str | None:
    """Return the path of the agent built for the running Python, None if there is none."""
    path = os.path.join(cache_dir, cache_key(source))
    if not os.path.lexists(path):
        return None
    check_trusted(cache_dir)
    check_trusted(path)
    return path


def build(include_dirs: Sequence[str], cache_dir: str, record_h_dir: str, cc: str | None) -> str:
    """Compile the agent for the running Python and return the file's path.

    The file appears under its name only when it is complete.
    """
    import tempfile

    path = os.path.join(cache_dir, cache_key())
    if not any(os.path.isfile(os.path.join(one, "Python.h")) for one in include_dirs):
        raise BuildError("no_headers", "Python.h not found in " + ", ".join(include_dirs))
    compiler = cc or _compiler()
    os.makedirs(cache_dir, mode=0o700, exist_ok=True)
    check_trusted(cache_dir)
    handle, unfinished = tempfile.mkstemp(".so.new", "agent-", cache_dir)  # 0600
    os.close(handle)
    try:
        _compile(compiler, [*include_dirs, record_h_dir], unfinished)
        os.chmod(unfinished, 0o600)
        os.replace(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise
    return path


def _compiler() -> str:
    import shutil

    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        path = shutil.which(name) if name else None
        if path:
            return path
    raise BuildError("no_compiler", "neither cc, gcc nor clang is on PATH")


def _compile(compiler: str, include_dirs: Sequence[str], output: str) -> None:
    import subprocess

    command = [compiler, "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread", "-w"]
    for directory in include_dirs:
        command += ["-I", directory]
    command += [path for path in sources() if path.endswith(".c")] + ["-o", output]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise BuildError("no_compiler", f"{compiler}: {error.strerror}") from None
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        code = "no_headers" if any("pyconfig.h" in line for line in errors) else "build_failed"
        raise BuildError(code, (errors or done.stderr.splitlines() or ["?"])[0])


def build_here(cache_dir: str) -> str:
    """Return the cached agent for the running Python, built if need be."""
    import sysconfig

    check_python()
    found = cached(cache_dir)
    if found:
        return found
    paths = sysconfig.get_paths()
    include_dirs = list(dict.fromkeys((paths["include"], paths["platinclude"])))
    return build(include_dirs, cache_dir, record_dir(), None)


def exit_code(reason: str) -> int:
    """Return the script's exit code for a reason."""
    return _FIRST_EXIT_CODE + REASONS.index(reason)


def reason_of(code: int) -> str:
    """Return the reason for the script's exit code."""
    index = code - _FIRST_EXIT_CODE
    return REASONS[index] if 0 <= index < len(REASONS) else "build_failed"


def main(argv: Sequence[str]) -> int:
    """Build into the cache directory given and print the path; what failed goes to stderr."""
    try:
        path = build_here(argv[1])
    except BuildError as error:
        print(error, file=sys.stderr)
        return exit_code(error.code)
    except OSError as error:
        print(f"unsafe_cache: {error}", file=sys.stderr)
        return exit_code("unsafe_cache")
    sys.stdout.buffer.write(os.fsencode(path))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
