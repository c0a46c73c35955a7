"""How every load is run: on the loop that --loop names, on CPython 3.9 and later.

A load notes its awaits with truth.wait and the bytes that each must have sent and received; the
lengths of one load lie further apart than headers are long, so no await's bytes can be another's.
Its last line of stdout is JSON: `waits`, and `overhead`, what a row may have beyond the lengths.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from itertools import count
from typing import TYPE_CHECKING, Any

import truth

if TYPE_CHECKING:
    from collections.abc import Coroutine

LOOPS = ("asyncio", "uvloop")
STRIDE = 600
_SERIAL = count()


def lengths() -> tuple[int, int]:
    """Return the lengths of the next request and of its answer, which no other call has."""
    serial = next(_SERIAL)
    return 1000 + STRIDE * serial, 1200 + STRIDE * (serial * 89 % 997)


async def together(named: dict[str, Coroutine[Any, Any, Any]]) -> list[Any]:
    """Run coroutines as tasks of these names; a TaskGroup that 3.9 has, too."""
    return await asyncio.gather(*(asyncio.create_task(c, name=n) for n, c in named.items()))


def run(main: Coroutine[Any, Any, Any], loop: str = LOOPS[0]) -> None:
    """Run a coroutine on a loop of this kind."""
    if loop == "uvloop":
        import uvloop  # noqa: PLC0415 (not everywhere)

        uvloop.run(main)
    else:
        asyncio.run(main)


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with what every load takes."""
    made = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    made.add_argument("--loop", choices=LOOPS, default=LOOPS[0])
    return made


def tell(app: str, sent: int = STRIDE - 1, recv: int = STRIDE - 1, **more: Any) -> None:
    """Print the truth; `sent` and `recv` are the bytes that protocols may add to a row's lengths."""
    overhead = {"sent": sent, "recv": recv}
    said = {"app": app, "tgid": os.getpid(), "overhead": overhead, "waits": truth.WAITS}
    print(json.dumps({**said, **more}))
