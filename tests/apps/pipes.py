"""Ground truth: streams on pipes: a child's input and output, and pipes that a thread answers.

Requests and answers have lengths that no other has. See coded.py for the output. On asyncio's own
loops, bytes also go through pipes that the loop does not watch, in pieces of the lengths `nobodys`.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import subprocess
import sys
import threading

import coded
from truth import wait

NOBODYS: list[int] = []
CHILD = """
import os, struct, sys
while head := sys.stdin.buffer.read(8):
    length, answer = struct.unpack("!II", head)
    sys.stdin.buffer.read(length - 8)
    sys.stdout.buffer.write(b"a" * answer)
    sys.stdout.buffer.flush()
"""


async def several(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, what: str, calls: int
) -> None:
    """Make calls one after the other."""
    for _ in range(calls):
        sent, recv = coded.lengths()
        with wait(what, sent=sent, recv=recv, exact=True):
            writer.write(coded.request(sent, recv))
            await reader.readexactly(recv)


async def by_child(calls: int) -> None:
    """Ask a child."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-c",
        CHILD,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdin
    assert child.stdout
    await several(child.stdout, child.stdin, "child", calls)
    child.stdin.close()
    await child.wait()


def answer(requests: int, answers: int) -> None:
    """Answer in a thread, with calls that block."""
    with os.fdopen(requests, "rb") as source, os.fdopen(answers, "wb", buffering=0) as sink:
        while head := source.read(coded.HEADER.size):
            length, wanted = coded.HEADER.unpack(head)
            source.read(length - coded.HEADER.size)
            left = wanted
            while left:
                left -= sink.write(b"a" * left) or 0


async def by_thread(calls: int) -> None:
    """Ask a thread of this process through two pipes."""
    loop = asyncio.get_running_loop()
    (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
    thread = threading.Thread(target=answer, args=(theirs_in, theirs_out))
    thread.start()
    reader = asyncio.StreamReader()
    source, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours_in, "rb")
    )
    sink, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, os.fdopen(ours_out, "wb")
    )
    writer = asyncio.StreamWriter(sink, protocol, reader, loop)
    await several(reader, writer, "thread", calls)
    sink.close()
    source.close()
    await loop.run_in_executor(None, thread.join)


def polled(length: int) -> None:
    """Ask a child, waiting in a poll of our own."""
    command = [sys.executable, "-I", "-c", CHILD]
    request = coded.request(length, length)
    subprocess.run(command, input=request, stdout=subprocess.PIPE, check=True)


async def unwatched(loop: asyncio.SelectorEventLoop) -> list[int]:
    """Move bytes that no loop waits for; return how many at a time."""
    (source, sink), lengths = os.pipe(), [61, 67]
    loop.add_reader(source, print)
    await asyncio.sleep(0.01)
    polled(lengths[0])
    os.close(source)
    again, other = os.pipe()
    assert again == source  # which was watched, and nothing has said that it is no more
    os.write(other, b"q" * lengths[1])
    os.read(again, lengths[1])
    loop.remove_reader(source)
    for end in (sink, again, other):
        os.close(end)
    if isinstance(loop._selector, selectors.EpollSelector):  # type: ignore[attr-defined]
        lengths.append(71)
        loop.call_soon(polled, lengths[-1])  # no task runs, as when a loop itself polls
    return lengths


async def main(tasks: int = 3, calls: int = 7) -> None:
    """Run some tasks of each kind at once."""
    named = {}
    for n in range(tasks):
        named[f"child-{n}"] = by_child(calls)
        named[f"thread-{n}"] = by_thread(calls)
    loop = asyncio.get_running_loop()
    if isinstance(loop, asyncio.SelectorEventLoop):
        NOBODYS.extend(await asyncio.create_task(unwatched(loop), name="unwatched"))
    await coded.together(named)


if __name__ == "__main__":
    coded.run(__doc__, main)
    coded.tell("pipes", nobodys=NOBODYS)
