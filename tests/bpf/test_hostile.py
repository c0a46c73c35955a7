"""A program that turns its own trace against the root that records it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bpf_scope import PYTHON, Scope, own_environment

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.bpf
NOBODY = 65534
SECRET = "only root may read this"

# what the program does to its trace `t`; VICTIM is a folder that is root's, SECRET a file in it
ATTACKS = {
    "links to files and folders of root": """
for name in ("syscall.parquet", "await.parquet", "manifest.json.new", "loss.parquet"):
    os.symlink(f"{VICTIM}/{name}", f"t/{name}")
os.symlink(VICTIM, "t/await.parts")
os.symlink(f"{VICTIM}/secret", "t/live/1-1.none")
os.symlink(f"{VICTIM}/secret", "t/live/x.ring")
os.symlink(f"{VICTIM}/secret", "t/raw/agent-x.raw")
""",
    "the folder of records led elsewhere": """
os.rename("t/raw", "t/aside")
os.symlink(VICTIM, "t/raw")
""",
    "the whole trace led elsewhere": """
os.rename("t", "aside")
os.symlink(VICTIM, "t")
""",
    "pipes where files are read and written": """
for name in ("live/1-1.none", "live/x.ring", "raw/agent-y.raw", "manifest.json.new", "gap.parquet"):
    os.mkfifo("t/" + name)
""",
}
PROGRAM = """\
import asyncio, os, sys, time
VICTIM = sys.argv[1]
async def main():
    await asyncio.sleep(0.01)
    ATTACK
    for _ in range(20):
        await asyncio.sleep(0.02)
asyncio.run(main())
"""


@pytest.fixture
def victim(public: Scope) -> Path:
    """Give a folder with a secret that is root's alone, in reach of the program."""
    folder = public.folder / "victim"
    folder.mkdir(mode=0o700)
    (folder / "secret").write_text(SECRET)
    (folder / "secret").chmod(0o600)
    return folder


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_roots_stays_roots(public: Scope, victim: Path, attack: str) -> None:
    """Nothing of root's is written, read, or given away; the end is a trace or one clear error."""
    lines = ATTACKS[attack].strip().replace("\n", "\n    ")
    script = public.script("app.py", PROGRAM.replace("ATTACK", lines))
    env = own_environment(SUDO_UID=str(NOBODY), SUDO_GID=str(NOBODY), SUDO_USER="nobody")
    done = public.run(PYTHON, script, str(victim), env=env)
    assert done.code in (0, 125), done.err
    assert "Traceback" not in done.err
    assert (done.code == 0) == ("fix: " not in done.err)
    assert [path.name for path in victim.iterdir()] == ["secret"]
    seen = [victim.stat(), (victim / "secret").stat()]
    assert {(file.st_uid, file.st_mode & 0o077) for file in seen} == {(0, 0)}
    assert (victim / "secret").read_text() == SECRET
    for path in public.folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and victim not in path.parents and path.name != "app.py":
            assert SECRET.encode() not in path.read_bytes(), path
            assert path.stat().st_uid == NOBODY, path


def test_a_folder_that_the_user_may_not_write_to(scope: Scope) -> None:
    """The trace is the invoking user's: where they may not write there is none, and a sentence."""
    env = own_environment(SUDO_UID=str(NOBODY), SUDO_GID=str(NOBODY), SUDO_USER="nobody")
    done = scope.run("touch", "ran", env=env)
    assert done.code == 125
    assert done.err.splitlines() == [
        "awaitscope: recording to t failed: Permission denied",
        "  fix: choose another -o, with room, where nobody may write",
    ]
    assert list(scope.folder.iterdir()) == []
