"""The shapes of an await that ends badly: an exception, a timeout, a cancellation.

`by` is the type of `ended_by` (`task` if there is none), `woken_by` the task that it names,
`innermost` the outcome of the innermost await, where the user's own sees another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any

from truth import answering, one_by_one, peer, wait

SHORT_S = 0.004
INLINE = sys.version_info >= (3, 12)  # wait_for runs what it waits for in the same task


async def failing(seconds: float) -> None:
    """Raise after a while."""
    await asyncio.sleep(seconds)
    raise ZeroDivisionError


async def failed_task() -> None:
    """Await a task that raises."""
    task = asyncio.create_task(failing(SHORT_S), name="failing")
    with contextlib.suppress(ZeroDivisionError), wait("task", woken_by="failing"):
        await task


async def failed_gather() -> None:
    """Gather a task that raises."""
    task = asyncio.create_task(failing(SHORT_S), name="failing_member")
    with contextlib.suppress(ZeroDivisionError), wait("gather", woken_by="failing_member"):
        await asyncio.gather(task)


async def failed_future() -> None:
    """Await a future that gets an exception."""
    future = asyncio.get_running_loop().create_future()

    async def setter() -> None:
        await asyncio.sleep(SHORT_S)
        future.set_exception(ZeroDivisionError())

    task = asyncio.create_task(setter(), name="failing_setter")
    with contextlib.suppress(ZeroDivisionError), wait("future", woken_by="failing_setter"):
        await future
    await task


async def timed_out() -> None:
    """Let a timeout cancel an await."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SHORT_S):
            with wait("timeout", by="timer"):
                await asyncio.Event().wait()


async def wait_for_timed_out() -> None:
    """Let wait_for run into its timeout."""
    innermost = "cancelled" if INLINE else "exception"
    with contextlib.suppress(TimeoutError), wait("wait_for", innermost=innermost):
        await asyncio.wait_for(asyncio.Event().wait(), SHORT_S)


async def cancelled_through() -> None:
    """Await a child while another task cancels this one: the child's end brings it."""
    inner = asyncio.create_task(asyncio.sleep(5), name="cancelled_child")
    waiter = asyncio.current_task()
    assert waiter

    async def canceller() -> None:
        await asyncio.sleep(SHORT_S)
        waiter.cancel()

    task = asyncio.create_task(canceller(), name="outer_canceller")
    with (
        contextlib.suppress(asyncio.CancelledError),
        wait("task", by="cancel", woken_by="outer_canceller"),
    ):
        await inner
    waiter.uncancel()
    await task


async def group_cancelled() -> None:
    """Let a failing member cancel another one: it is the canceller."""

    async def member() -> None:
        with wait("member", by="cancel", woken_by="group_failing"):
            await asyncio.Event().wait()

    with contextlib.suppress(BaseExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(member(), name="group_cancelled_member")
            group.create_task(failing(SHORT_S), name="group_failing")


async def wait_for_failed() -> None:
    """Let what wait_for waits for raise."""
    innermost = "result" if INLINE else "exception"
    with contextlib.suppress(ZeroDivisionError), wait("wait_for", innermost=innermost):
        await asyncio.wait_for(failing(SHORT_S), 5)


async def ended_badly() -> dict[str, Any]:
    """Fail, time out and cancel awaits in every way."""
    subjects = (failed_task, failed_gather, failed_future, timed_out, wait_for_timed_out)
    more = (wait_for_failed, cancelled_through, group_cancelled)
    return {"count": await one_by_one(*subjects, *more)}


async def cancelled_by_answer() -> dict[str, Any]:
    """Let the callback that reads an answer cancel who waits for it: at once, later, once woken."""
    loop = asyncio.get_running_loop()
    sizes = ((1001, 5003), (1002, 5009), (1003, 5011))

    def at_once(_future: asyncio.Future[None], task: asyncio.Task[None]) -> None:
        task.cancel()

    def later(_future: asyncio.Future[None], task: asyncio.Task[None]) -> None:
        loop.call_soon(task.cancel)

    def once_woken(future: asyncio.Future[None], task: asyncio.Task[None]) -> None:
        future.set_result(None)
        task.cancel()

    for how, (sent, answer) in zip((at_once, later, once_woken), sizes, strict=True):

        async def subject(how: Any = how, sent: int = sent, answer: int = answer) -> None:
            future, task = loop.create_future(), asyncio.current_task()

            class Answered(asyncio.Protocol):
                received = 0

                def data_received(self, data: bytes) -> None:
                    self.received += len(data)
                    if self.received == answer:
                        how(future, task)

            port = peer(answering((sent, answer)))
            transport, _ = await loop.create_connection(Answered, "127.0.0.1", port)
            try:
                with wait(how.__name__, sent_bytes=sent, recv_bytes=answer):
                    transport.write(b"q" * sent)
                    await future
            finally:
                transport.close()

        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.create_task(subject(), name=how.__name__)
    return {"count": len(sizes)}


SHAPES = (ended_badly, cancelled_by_answer)
