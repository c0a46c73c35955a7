"""What held the loop: each block is found where it is, with its cause and whom it delayed."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tracing import APPS, COMMAND, LOOP_KINDS, on

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tracing import Row, Traced, Tracings

from tests.late_names import late_names

pytestmark = [pytest.mark.bpf, pytest.mark.netns]
PARTS = {
    "on_cpu": "on_cpu_ns",
    "syscall": "syscall_ns",
    "gil": "gil_ns",
    "preempted": "runq_ns",
    "throttled": "throttled_ns",
}
# what each block does: the cause, the system call in which it does it, the C function
BLOCKS = {
    "sleep": ("syscall", "clock_nanosleep", "time.sleep"),
    "request": ("syscall", "recvfrom", "_socket.socket.recv_into"),
    "password": ("on_cpu", None, "bcrypt._bcrypt.hashpw"),
    "parse": ("on_cpu", None, "_json.Scanner.__call__"),
    "pattern": ("on_cpu", None, "re.Pattern.match"),
    "lookup": ("syscall", "poll", "_socket.gethostbyname"),
    "lock": ("syscall", "futex", "_thread.lock.__enter__"),
    "gil_in_one_piece": ("gil", None, "time.sleep"),
    "gil_in_pieces": ("gil", None, "time.sleep"),
    "collect": ("on_cpu", None, "gc"),
    "disk": ("syscall", "pread64", "posix.pread"),
}
PLACES = ("coroutine", "data_received", "add_reader", "call_later")
# what an iteration full of short callbacks ran; libuv calls a protocol by itself, without a name
MANY = {
    "call_soon": "short",
    "data_received": "_SelectorSocketTransport._read_ready",
    "add_reader": "short_reader",
    "call_later": "short",
}
OUTERMOST = {
    "coroutine": ("in_coroutine",),
    "data_received": ("_SelectorSocketTransport._read_ready", "Blocker.data_received"),
    "add_reader": ("in_reader.<locals>.readable",),
    "call_later": ("in_timer.<locals>.late",),
}
SLACK_NS = 20_000_000


@pytest.fixture(scope="session", params=LOOP_KINDS)
def loop(request: pytest.FixtureRequest) -> str:
    """Give each kind of loop in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def blockers(
    traced: Tracings, loop: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Traced]:
    """Give the trace of a loop that is held in every way and place."""
    with late_names(tmp_path_factory.mktemp("names")) as around:
        yield traced("blockers.py", *on(loop), around=tuple(around))


@pytest.fixture(scope="session")
def rows(blockers: Traced) -> list[Row]:
    """Give its rows of `blocking`."""
    return list(blockers.read("blocking")["rows"])


def during(rows: list[Row], block: Row) -> list[Row]:
    """Return the rows that overlap a block of the truth."""
    return [
        row
        for row in rows
        if row["start_ns"] < block["end_ns"] and row["start_ns"] + row["dur_ns"] > block["start_ns"]
    ]


def truth(trace: Traced, what: str, place: str) -> Row:
    """Return what the app says of a block."""
    (found,) = [b for b in trace.truth["blocks"] if (b["what"], b["place"]) == (what, place)]
    return dict(found)


def lines_of(text: str) -> set[str]:
    """Return the lines of blocks.py that end in a text."""
    lines = enumerate((APPS / "blocks.py").read_text().splitlines(), 1)
    return {f"{APPS / 'blocks.py'}:{n}" for n, line in lines if line.endswith(text)}


def guilty(what: str) -> set[str]:
    """Return the lines of a block that are to blame."""
    return lines_of(f"# blocks: {what}")


def parts(row: Row) -> dict[str, int]:
    """Return a row's time by cause; one that was not told apart has none."""
    return {cause: row[key] or 0 for cause, key in PARTS.items()}


def largest(row: Row) -> str:
    """Return the largest cause that is not another process's doing."""
    own = {cause: ns for cause, ns in parts(row).items() if cause not in ("preempted", "throttled")}
    return max(own, key=lambda cause: own[cause])


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("what", BLOCKS)
def test_each_block_in_each_place(
    blockers: Traced, loop: str, rows: list[Row], what: str, place: str
) -> None:
    """A block has one row, as long as the block, with its cause, its calls and its victims."""
    block = truth(blockers, what, place)
    (row,) = during(rows, block)
    assert row["start_ns"] <= block["start_ns"]
    assert row["dur_ns"] - (block["end_ns"] - block["start_ns"]) in range(SLACK_NS)
    cause, call, c_function = BLOCKS[what]
    assert largest(row) == cause
    assert call is None or row["syscalls"][0]["name"] == call
    if cause == "gil":
        assert sum(c["dur_ns"] for c in row["syscalls"]) < row["gil_ns"]
    victims = {wait["task_name"] for wait in row["waited"]}
    assert "victim" in victims
    assert row["delayed_awaits"] >= len(row["waited"]) == len(victims)
    assert row["complete"]
    assert row["where"] in guilty(what)
    assert row["where_from"] == "sampled"
    assert row["leaf"] == row["chain"][0]
    assert row["chain"][-1].split(" ")[1].startswith(OUTERMOST[place])
    assert (row["c_function"], row["c_function_from"]) == (c_function, "sampled")
    if place == "coroutine":
        assert row["task_name"] == f"{what}-in_coroutine"
        assert row["kind"] == "step"
    else:
        assert row["task_id"] is None
        assert row["kind"] == "callback"
        assert (row["name"] == "libuv") == (loop == "uvloop" and place == "data_received")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("what", "of"), [("lock", "lock"), ("gil_in_one_piece", "gil"), ("gil_in_pieces", "gil")]
)
def test_who_held_it(blockers: Traced, rows: list[Row], what: str, of: str, place: str) -> None:
    """The thread is named that had the lock or the GIL: the one that the block started."""
    block = truth(blockers, what, place)
    (row,) = during(rows, block)
    holder = next(holder for holder in row["holders"] if holder["of"] == of)
    slept = row["gil_ns"] if of == "gil" else row["syscall_ns"]
    assert holder["dur_ns"] > 0.5 * slept
    if of == "gil":
        assert holder["leaf"].split(" ")[1] in {f"{what}.<locals>.hold", f"{what}.<locals>.compute"}
    (born,) = blockers.query(
        f"SELECT tid FROM thread WHERE what = 1 AND tid = {holder['tid']}"
        f" AND ts_ns BETWEEN {block['start_ns']} AND {block['end_ns']}"
    )
    assert born["tid"] != row["tid"]


def test_parts_and_cause_agree(rows: list[Row]) -> None:
    """The five parts sum to the duration, and the cause is the largest."""
    for row in rows:
        shares = parts(row)
        assert sum(shares.values()) == row["dur_ns"]
        assert None not in (row["gil_ns"], row["throttled_ns"])
        if row["kind"] != "iteration":
            assert shares[row["cause"]] == max(shares.values())


@pytest.mark.parametrize("place", MANY)
def test_many_small_callbacks(blockers: Traced, loop: str, rows: list[Row], place: str) -> None:
    """An iteration full of callbacks that are short each is one row, which names them."""
    (row,) = during(rows, truth(blockers, "many", place))
    assert (row["kind"], row["task_id"]) == ("iteration", None)
    assert row["where"] in lines_of("time.sleep(0.005)")
    assert row["c_function"] == "time.sleep"
    native = loop == "uvloop" and place == "data_received"
    assert row["ran"][0]["name"] == ("libuv" if native else MANY[place])
    assert row["ran"][0]["count"] == 40
    assert row["runs"] >= 40
    assert row["cause"] in ("many_callbacks", "preempted", "throttled")
    assert largest(row) == "syscall"


@pytest.mark.parametrize("place", PLACES)
def test_two_blocks_close_together(blockers: Traced, rows: list[Row], place: str) -> None:
    """Two blocks 30 ms apart are two rows, each with its own cause."""
    both = [truth(blockers, what, place) for what in ("first", "second")]
    (first,), (second,) = (during(rows, block) for block in both)
    assert first["hold_id"] != second["hold_id"]
    task = "twice-in_coroutine" if place == "coroutine" else None
    assert first["task_name"] == second["task_name"] == task
    assert [largest(row) for row in (first, second)] == ["syscall", "on_cpu"]
    assert first["where"] in guilty("first")
    assert second["where"] in guilty("second")


def test_nobody_else_is_accused(blockers: Traced, rows: list[Row]) -> None:
    """Each row is one of the blocks, or what others did to the process."""
    blocks = blockers.truth["blocks"]
    for row in rows:
        inside = [block for block in blocks if during([row], block)]
        assert inside or row["cause"] in ("preempted", "throttled"), row


def test_told_while_it_runs(tmp_path: Path, loop: str) -> None:
    """--watch-blocking tells of each long step while the program runs, and counts at the end."""
    options = ["--watch-blocking", "60", "--level", "1", "-o", tmp_path / "x.trace"]
    program = [sys.executable, APPS / "blockers.py", *on(loop)]
    program += ["--only", "sleep", "gil_in_one_piece"]
    done = subprocess.run(
        [COMMAND, "run", *options, "--", *program], capture_output=True, text=True, check=True
    )
    head = "awaitscope: blocking: "
    lines = [line.removeprefix(head) for line in done.stderr.splitlines() if head in line]
    slept, short, waited = (
        [line for line in lines[:-1] if any(place in line for place in lines_of(text))]
        for text in ("# blocks: sleep", "time.sleep(0.005)", "# blocks: gil_in_one_piece")
    )
    assert all("blocked in clock_nanosleep" in line for line in slept + short)
    for names in OUTERMOST.values():
        assert len([line for line in slept if any(f" {n} at " in line for n in names)]) <= 1
    # on a busy machine some wanted a CPU most of the time, or were seen once only
    vague = [line for line in lines if line.endswith(("not its own doing", "unknown place"))]
    assert min(len(slept), len(short)) >= 1
    assert len(slept) + len(short) + len(vague) >= len(OUTERMOST) + len(MANY)
    # of what libuv calls by itself it is not seen where one ends and the next begins
    crowded = [line for line in short if "many callbacks, " in line]
    assert len(short) - len(crowded) <= (loop == "uvloop")
    # who waits for the GIL wakes up each 5 ms, and on a busy machine waits for a CPU then
    assert waited
    assert all("waited for the GIL" in line for line in waited)
    assert lines[-1].startswith(f"{len(lines) - 1} times over 60 ms, ")


def test_over(blockers: Traced, rows: list[Row]) -> None:
    """--over chooses by length; a run that is over it is no part of an iteration's row."""
    some = blockers.read("blocking", "--over", "250")["rows"]
    # an iteration without a run that is over it has a row of its own
    runs = [row["hold_id"] for row in some if row["kind"] != "iteration"]
    long = [row for row in rows if row["dur_ns"] > 250_000_000]
    assert runs == [row["hold_id"] for row in long if row["kind"] != "iteration"]
    fine = blockers.read("blocking", "--over", "4")["rows"]
    small = [row for row in fine if row["name"] == "short"]
    assert len(small) == 80
    around = during(fine, truth(blockers, "many", "call_soon"))
    assert not [row for row in around if row["kind"] == "iteration"]


def test_totals(blockers: Traced, rows: list[Row]) -> None:
    """The totals are those of the rows, the costliest first, and name who suffered most."""
    document: dict[str, Any] = blockers.read("blocking")
    totals = document["culprits"]
    assert sum(total["count"] for total in totals) == len(rows)
    assert sum(total["dur_ns"] for total in totals) == sum(row["dur_ns"] for row in rows)
    costs = [total["dur_ns"] for total in totals]
    assert costs == sorted(costs, reverse=True)
    assert document["suffered_most"]["task_name"] == "victim"
    delayed = sum(total["delayed_ns"] for total in totals)
    assert 0 < document["suffered_most"]["delayed_ns"] <= delayed


def test_the_table_names_the_app(blockers: Traced) -> None:
    """All that the app blocked in lies in lines of the app's own files."""
    folder = str(APPS)
    for row in blockers.read("blocking")["rows"]:
        assert row["where"] is None or row["where"].startswith(folder)
