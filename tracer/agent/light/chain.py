"""The await chain of a suspended task, from its coroutine down to the future: as chain.c."""

from _weakref import ref
from gc import get_referents

from .texts import CODE, info_of, infos, line_of

_MAX_DEPTH = 400
_DEEP = 6  # a user frame deeper than this is remembered, to skip the walk down to it
_MAX_TYPES = 64


async def _coroutine():
    pass


def _generator():
    yield


async def _async_generator():
    yield


_one = _coroutine()
_one.close()
_CORO, _GEN, _AGEN = type(_one), type(_generator()), type(_async_generator())
_END, _WRAP, _FOREIGN = "end", "wrapper", "foreign"
# objects that stand for the coroutine or async generator that they hold
_WRAPPERS = {
    "async_generator_asend",
    "async_generator_athrow",
    "coroutine_wrapper",
    "anext_awaitable",
}
_kinds = {_CORO: _CORO, _GEN: _GEN, _AGEN: _AGEN}


class Suspension:
    """How a task is suspended, and what it remembers to recognise the same await again.

    `awaited` is a weak reference to what the user frame awaits, `user` one to a user frame deep in
    the chain; `where` and `leaf` are texts by number, `row` is the await's serial.
    """

    __slots__ = ("awaited", "leaf", "row", "user", "where")

    def __init__(self):
        """Begin before the first one."""
        self.awaited = self.user = None
        self.where = self.leaf = self.row = 0

    def clear(self):
        """The task is over."""
        self.awaited = self.user = None
        self.where = self.leaf = 0

    def update(self, coro):
        """Describe how the chain below `coro` is suspended; True if the row is the one before."""
        if self.awaited is not None and self._same_await():
            return True
        user = self.user() if self.user is not None else None
        from_root = user is None or not _is_awaiting(user)
        leaf, user, awaited, depth, found = _walk(coro if from_root else user)
        if user is None:
            self.row += 1
            self.where = self.leaf = 0
            return False
        self.leaf = leaf.leaf
        known = awaited if type(awaited) is _CORO else _identity(awaited)
        if known is not None and self.awaited is not None and self.awaited() is known:
            return True
        self.row += 1
        self.where = _line(user)
        self.awaited = None if known is None else ref(known)
        if from_root:
            deep = depth > _DEEP and found and type(user) is _CORO
            self.user = ref(user) if deep else None
        return False

    def _same_await(self):
        """Say whether nothing of the user's came in below what the user frame awaited last time."""
        awaited = self.awaited()
        if awaited is None or not _is_awaiting(awaited):
            return False
        leaf, _user, _awaited, _depth, found = _walk(awaited)
        if leaf is None or found:
            return False
        self.leaf = leaf.leaf
        return True


def _learn(kind):
    found = _FOREIGN if hasattr(kind, "cr_await") else _END
    if kind.__module__ == "builtins" and kind.__name__ in _WRAPPERS:  # not Cython's of that name
        found = _WRAP
    if len(_kinds) < _MAX_TYPES:
        _kinds[kind] = found
    return found


def _kind_of(thing):
    kind = type(thing)
    return _kinds.get(kind) or _learn(kind)


def _unwrap(wrapper):
    """Return what a wrapper stands for, None if that is nothing."""
    for held in get_referents(wrapper):
        if _kind_of(held) is not _END:
            return held
    return None


def _awaited_by(thing, kind):
    """Return what an object awaits, None at the end of the chain."""
    if kind is _CORO:
        return thing.cr_await
    if kind is _GEN:
        return thing.gi_yieldfrom
    if kind is _AGEN:
        return thing.ag_await
    if kind is _WRAP:
        return _unwrap(thing)
    return getattr(thing, "cr_await", None) if kind is _FOREIGN else None


def code_of(thing):
    """Return a coroutine's code object, None if it has none."""
    kind = _kind_of(thing)
    if kind is _CORO:
        return thing.cr_code
    if kind is _GEN:
        return thing.gi_code
    if kind is _AGEN:
        return thing.ag_code
    code = getattr(thing, "cr_code", None) if kind is _FOREIGN else None
    return code if type(code) is CODE else None


def _info(thing, kind):
    if kind is _END or kind is _WRAP:
        return None
    if kind is _GEN:
        return info_of(thing.gi_code)
    code = code_of(thing)
    if code is not None:
        return info_of(code)
    name = getattr(thing, "__qualname__", None)
    return info_of(name) if type(name) is str else None


def _identity(awaited):
    """Return an object whose life is the life of the await, None if it has none to hold on to."""
    for _ in range(_MAX_DEPTH):
        if awaited is None:
            break
        if _kind_of(awaited) is _WRAP:
            awaited = _unwrap(awaited)
            # an async generator outlives its items: what it awaits does not
            if type(awaited) is _AGEN:
                awaited = awaited.ag_await
        else:
            return awaited if type(awaited).__weakrefoffset__ else None
    return None


def _line(thing):
    if type(thing) is _CORO:
        return line_of(thing.cr_frame, thing.cr_code)
    code = code_of(thing)
    if code is None:
        return 0
    kind = _kind_of(thing)
    name = "gi_frame" if kind is _GEN else "ag_frame" if kind is _AGEN else "cr_frame"
    frame = getattr(thing, name, None)
    return info_of(code).defined if frame is None else line_of(frame, code)


def _walk(thing):
    """Return the leaf's info, the user frame, what that awaits, its depth, if it is a user's."""
    leaf = user = awaited = None
    at, found = 0, False
    for depth in range(_MAX_DEPTH):
        if type(thing) is _CORO:
            code, below = thing.cr_code, thing.cr_await
            info = infos.get(id(code)) or info_of(code)
        else:
            kind = _kind_of(thing)
            info, below = _info(thing, kind), _awaited_by(thing, kind)
        if info is not None:
            # what is built on a lock or a queue is awaited, not what it is built on
            if leaf is None or not leaf.asyncio or not info.primitive:
                leaf = info
            if not info.library:
                at, user, awaited, found = depth, thing, below, True
            elif user is None:
                at, user, awaited = depth, thing, below
        if below is None:
            break
        thing = below
    return leaf, user, awaited, at, found


def _is_awaiting(thing):
    """Say whether this coroutine is suspended in an await: then it is part of its one chain."""
    return type(thing) is _CORO and thing.cr_await is not None
