"""Set something up, hand it out, take it down again, whatever signal comes and whenever."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Thing = TypeVar("Thing")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def undisturbed(set_up: Callable[[ExitStack], Thing]) -> Iterator[Thing]:
    """Yield what `set_up` returns, then run what it registered on its stack, last first.

    Signals that come during set-up or clean-up take effect after it. In the block SIGTERM and
    SIGHUP raise SystemExit, as SIGINT raises KeyboardInterrupt, unless the caller handles them.
    """
    with _unwinding(), ExitStack() as stack:
        try:
            with _signals_held():
                thing = set_up(stack)
            yield thing
        finally:
            with _signals_held():
                stack.close()


@contextmanager
def _signals_held() -> Iterator[None]:
    """Put the signals off until the block is done; only the main thread gets and holds them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    late: list[int] = []
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    # An ignored signal (nohup, a shell's background job) stays ignored.
    before = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, lambda came, _frame: late.append(came))
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
        for came in late:
            signal.raise_signal(signal.Signals(came))


@contextmanager
def _unwinding() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise where their default would end the process on the spot."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    unhandled = [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in unhandled:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in unhandled:
            signal.signal(number, signal.SIG_DFL)
