"""A program that turns its own trace against the root that records it, and whoever reads it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from bpf_scope import PYTHON, Scope, own_environment
from click.testing import CliRunner

from tracer.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.bpf
NOBODY = 65534
SECRET = "only root may read this"

# what the program does to its trace `t`; VICTIM is a folder that is root's, SECRET a file in it
ATTACKS = {
    "links to files and folders of root": """
os.unlink("t/manifest.json.new")
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
os.unlink("t/manifest.json.new")
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
        if (
            path.is_file()
            and not path.is_symlink()
            and victim not in path.parents
            and path.name != "app.py"
        ):
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


NASTY = "\x1b[2J\x1b]0;owned\x07\r\n\u202etxt\x9b31m\u2028"
# all names that a program can choose; awaits on a pair of sockets
NAMES = """\
import asyncio, ctypes, json, os, socket, sys, time, types
NASTY = json.loads(sys.argv[1])
def renamed(function, name):
    code = function.__code__.replace(co_name=name, co_filename=name + ".py")
    made = types.FunctionType(code, globals(), name)
    made.__qualname__ = name
    return made
async def talks(one, reader):
    for _ in range(5):
        one.send(b"x" * 10)
        await reader.readexactly(10)
        await asyncio.sleep(0)
async def blocks():
    time.sleep(0.08)
    await asyncio.sleep(0)
async def main():
    ctypes.CDLL(None).prctl(15, b"\\x1b[31m\\xff\\n")
    one, two = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=two)
    async with asyncio.TaskGroup() as group:
        group.create_task(renamed(talks, NASTY)(one, reader), name=NASTY)
        group.create_task(renamed(blocks, NASTY * 2000)(), name=NASTY * 2000)
    writer.close()
    one.close()
asyncio.run(main())
"""
COMMANDS = (
    *(
        ("info",),
        ("tasks",),
        ("awaits",),
        ("awaits", "--group", "where"),
        ("steps",),
        ("timeline",),
    ),
    *(
        ("awaits", "--group", "coroutine"),
        ("awaits", "--group", "task"),
        ("blocking", "--over", "20"),
    ),
    *(("schema",), ("query", "SELECT * FROM string"), ("query", "SELECT * FROM thread")),
)


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Scope, str]]:
    """Give a trace in which every name is nasty, and what `run` said."""
    made = Scope(tmp_path_factory.mktemp("nasty"))
    script = made.script("app\x1b[31m\n\udcff.py", NAMES)
    done = made.run(PYTHON, script, json.dumps(NASTY), NASTY)
    assert done.code == 0, done.err
    yield made, done.err
    made.close()


def is_harmless(text: str) -> bool:
    """Say whether a terminal shows a text as it is, line by line."""
    return all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_nasty_names_are_shown_harmlessly(nasty: tuple[Scope, str], words: tuple[str, ...]) -> None:
    """No listing carries what a terminal obeys, nor a cell without end; JSON has the names."""
    scope, said = nasty
    assert is_harmless(said)
    for form in ((), ("--fmt", "github"), ("--csv",), ("--json",)):
        if form == ("--csv",) and words[0] in ("info", "steps"):
            continue
        name, *more = words
        arguments = [name, str(scope.trace), *more, *form]
        done = CliRunner().invoke(main, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert is_harmless(done.stdout), form
        assert is_harmless(done.stderr), form
        if form in ((), ("--fmt", "github")):
            assert max(map(len, done.stdout.splitlines())) < 2000
    if words == ("tasks",):
        names = {row["task_name"] for row in json.loads(done.stdout)["rows"]}
        cut = (NASTY * 2).encode()[:40].decode(errors="replace")
        assert {NASTY, cut} <= names


def test_a_nasty_export_is_harmless(nasty: tuple[Scope, str]) -> None:
    """Formats that people read as text carry nothing that a terminal obeys."""
    scope, _said = nasty
    for form in ("csv", "mermaid", "chrome"):
        arguments = ["export", str(scope.trace), "--to", form, "-o", "-"]
        done = CliRunner().invoke(main, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert is_harmless(done.stdout), form
