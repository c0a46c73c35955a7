"""The handles that the agent makes in asyncio's place are asyncio's own in every respect."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.unit.agent_ring import Lab

# what a program can see of its handles: their fields, texts, order, context and errors
HANDLES = """
import asyncio, collections, contextvars, gc, sys, weakref
seen = []
def show(handle):
    names = [name for name in asyncio.Handle.__slots__ if name != "__weakref__"]
    fields = {name: getattr(handle, name) for name in names}
    del fields["_loop"], fields["_context"], fields["_callback"]
    trace = fields.pop("_source_traceback")
    made = trace and (trace[-1].name, trace[-1].lineno)
    seen.append((type(handle).__name__, fields, made, handle.cancelled(),
                 repr(handle).replace(hex(id(handle)), "")))
var = contextvars.ContextVar("var", default="outside")
class Deque(collections.deque):
    def append(self, handle):
        seen.append("appended")
        super().append(handle)
def note(*args): seen.append((args, var.get()))
async def main(loop):
    var.set("main")
    show(loop.call_soon(note, 1, "two"))
    other = contextvars.copy_context()
    other.run(var.set, "other")
    handle = loop.call_soon(note, 3, context=other)
    assert handle._context is other and handle._loop is loop and handle._callback is note
    show(handle)
    cancelled = loop.call_soon(note, "never")
    cancelled.cancel()
    show(cancelled)
    show(loop.call_soon_threadsafe(note, 4))
    await asyncio.sleep(0)
    for bad in (lambda: loop.call_soon(note, context=7), lambda: loop.call_soon()):
        try:
            bad()
            await asyncio.sleep(0)
        except (TypeError, AttributeError) as error:
            seen.append(type(error).__name__)
    gone = weakref.ref(loop.call_soon(note, 5))
    assert gc.is_tracked(gone())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    seen.append(gone())
    loop._ready = Deque(loop._ready)
    loop.call_soon(note, 6)
    await asyncio.sleep(0)
    loop.set_debug(True)
    show(loop.call_soon(note, 7))
    await asyncio.sleep(0)
    loop.set_debug(False)
    real, init = asyncio.events.Handle, asyncio.events.Handle.__init__
    class Mine(real):
        pass
    asyncio.events.Handle = Mine
    show(loop.call_soon(note, 8))
    asyncio.events.Handle = real
    def patched(self, *args):
        seen.append("patched")
        init(self, *args)
    real.__init__ = patched
    show(loop.call_soon(note, 9))
    real.__init__ = init
    show(loop.call_soon(note, 10))
    await asyncio.sleep(0)
loop = asyncio.new_event_loop()
loop.set_exception_handler(lambda loop, context: seen.append(context["message"].split("(")[0]))
loop.run_until_complete(main(loop))
loop.get_debug = lambda: 1 / 0
try:
    loop.call_soon(note)
except ZeroDivisionError:
    seen.append("its debug mode cannot be told")
print(*seen, sep="\\n")
"""


def test_handles_are_asyncios_own(lab: Lab) -> None:
    """A program sees the same fields, contexts, errors and patches as without the agent."""
    alone = lab.run(HANDLES, traced=False).stdout
    assert len(alone.splitlines()) > 25
    assert lab.run(HANDLES).stdout == alone
    (ring,) = lab.rings()
    names = [ring.strings[row["name_str"]] for row in ring.of("callback")]
    # each note that ran is a callback, whoever made its handle; in light mode one that cannot
    assert names.count("note") == 9 + lab.light
