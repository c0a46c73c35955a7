"""What the loads share that tell an await's bytes by their length; for CPython 3.9 and later.

A load notes its awaits with truth.wait and the bytes that each must have sent and received; the
lengths of one load lie further apart than headers are long, so no await's bytes can be another's.
Its last line of stdout is JSON: `waits`, and `overhead`, what a row may have beyond the lengths.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import struct
from itertools import count
from typing import TYPE_CHECKING, Any

import running
import truth

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

STRIDE = 600
_SERIAL = count()
HEADER = struct.Struct("!II")  # length of this request, length of the wanted answer


def lengths() -> tuple[int, int]:
    """Return the lengths of the next request and of its answer, which no other call has."""
    serial = next(_SERIAL)
    return 1000 + STRIDE * serial, 1200 + STRIDE * (serial * 89 % 397)


def request(sent: int, recv: int) -> bytes:
    """Return a request of so many bytes to `serve`, for an answer of so many."""
    return HEADER.pack(sent, recv).ljust(sent, b"q")


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request with as many bytes as it asks for."""
    while True:
        try:
            length, answer = HEADER.unpack(await reader.readexactly(HEADER.size))
        except asyncio.IncompleteReadError:
            break
        await reader.readexactly(length - HEADER.size)
        writer.write(b"a" * answer)
    writer.close()


async def together(named: dict[str, Coroutine[Any, Any, Any]]) -> list[Any]:
    """Run coroutines as tasks of these names; a TaskGroup that 3.9 has, too."""
    return await asyncio.gather(*(asyncio.create_task(c, name=n) for n, c in named.items()))


def run(doc: str | None, main: Callable[..., Coroutine[Any, Any, Any]], *needs: str) -> None:
    """Run `main` on the loop that --loop names; it gets the values of the options it needs."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    running.add_option(parser)
    for need in needs:
        parser.add_argument(f"--{need}", required=True)
    given = vars(parser.parse_args())
    running.runner(given["loop"])(main(*(given[need] for need in needs)))


def tell(app: str, sent: int = STRIDE - 1, recv: int = STRIDE - 1, **more: Any) -> None:
    """Print the truth; `sent` and `recv`: how many bytes protocols may add to an await's."""
    overhead = {"sent": sent, "recv": recv}
    said = {"app": app, "tgid": os.getpid(), "overhead": overhead, "waits": truth.WAITS}
    print(json.dumps({**said, **more}))
