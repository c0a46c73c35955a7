"""What runs inside the traced process, and awaitscope's side of getting it there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from tracer.agent import build

_HERE = Path(__file__).resolve().parent
_ELF = b"\x7fELF"
# why an agent runs in Python (build.LIGHT): for people, and the fix
_LIGHT = {
    "no_compiler": ("there is no C compiler", "sudo apt-get install gcc libc6-dev"),
    "no_headers": (
        "the traced Python's headers are missing",
        "sudo apt-get install python3-dev (another Python: its own development files)",
    ),
    "build_failed": (
        "the agent in C cannot be built for the traced Python",
        "look whether its headers are of its version, and try its own C compiler (CC)",
    ),
    "unsafe_cache": (
        "others may write where built agents are kept",
        "chmod -R go-w ~/.cache/awaitscope, which must be yours",
    ),
}


def bootstrap_dir() -> Path:
    """Return the folder that goes first on the target's PYTHONPATH."""
    return _HERE / "bootstrap"


@cache
def _source_hash() -> str:
    return build.source_hash()


def environment(
    base_env: dict[str, str], live_dir: Path, cache_dir: Path, ring_slots: int
) -> dict[str, str]:
    """Return the target's environment with the agent's bootstrap in it.

    Args:
        base_env: the environment it would have without awaitscope; left alone.
        live_dir: where agents put their ring files.
        cache_dir: where built agents are kept.
        ring_slots: records of 64 bytes in each ring, a power of two.

    """
    env = dict(base_env)
    path = env.get("PYTHONPATH")
    env["PYTHONPATH"] = f"{bootstrap_dir()}{os.pathsep}{path}" if path else str(bootstrap_dir())
    env["AWAITSCOPE_LIVE"] = str(live_dir.absolute())
    env["AWAITSCOPE_CACHE"] = str(cache_dir.absolute())
    env["AWAITSCOPE_RING_SLOTS"] = str(ring_slots)
    # Saves every traced process the import of hashlib when it looks for the built agent.
    env["AWAITSCOPE_SOURCES"] = _source_hash()
    return env


def light_mode(reason: str) -> str:
    """Return the line that says that an agent runs in Python, why, and what to do about it.

    Args:
        reason: one of build.LIGHT, perhaps with `: detail`.

    """
    code = reason.partition(":")[0]
    why, fix = _LIGHT[code]
    return (
        f"light mode ({code}): {why}, so the agent runs in Python: some 8 µs more per step,"
        " no waits for the GIL, no lines inside long steps, no tasks on uvloop before 0.23,"
        " no writers of what a newer one sends later;"
        f" fix: {fix}"
    )


def is_light(reason: str | None) -> bool:
    """Say whether an agent that cannot be built for this reason runs in Python."""
    return bool(reason) and str(reason).partition(":")[0] in build.LIGHT


def python_of(argv: list[str], env: dict[str, str]) -> Path | None:  # noqa: PLR0911 (guards)
    """Return the interpreter that a command will run, None if it is not plainly a Python."""
    found = shutil.which(argv[0], path=env.get("PATH", os.defpath))
    if found is None:
        return None
    try:
        with Path(found).open("rb") as file:
            head = file.read(256)
    except OSError:
        return None
    if head.startswith(_ELF):
        name = Path(found).resolve().name
        return Path(found) if name.startswith(("python", "pypy")) else None
    if not head.startswith(b"#!"):
        return None
    words = os.fsdecode(head[2:].split(b"\n", 1)[0]).split()
    if not words:
        return None
    if Path(words[0]).name == "env":
        names = [word for word in words[1:] if not word.startswith("-")]
        interpreter = shutil.which(names[0], path=env.get("PATH", os.defpath)) if names else None
    else:
        interpreter = words[0]
    if interpreter is None or not Path(interpreter).name.startswith(("python", "pypy")):
        return None
    return Path(interpreter)


def prebuild(python_exe: Path, cache_dir: Path) -> str | None:
    """Build the agent for an interpreter, so that its first traced run need not.

    Returns:
        None, or `code: detail` of what is in the way (see build.REASONS).

    """
    script = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); import build\n"
        "try: build.build_here(sys.argv[2]); said = None\n"
        "except build.BuildError as error: said = str(error)\n"
        "except OSError as error: said = f'unsafe_cache: {error}'\n"
        "print(json.dumps(said))"
    )
    try:
        done = subprocess.run(
            [str(python_exe), "-I", "-S", "-B", "-c", script, str(_HERE), str(cache_dir)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        said = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return f"build_failed: {python_exe}: {error}"
    return str(said) if said else None
