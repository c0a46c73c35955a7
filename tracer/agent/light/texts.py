"""Texts are sent once and named by a number: as strings.c.

Code objects are looked up by address; each one in a table is held by a strong reference, whose
longer life no application can notice.
"""

from time import monotonic_ns

from . import records as r
from .ring import ring, this_thread

_PIECE_BYTES = 40
_MAX_TEXT = 1000
_MAX_ENTRIES = 1 << 16

FUNCTION, BUILTIN = type(lambda: None), type(len)
METHOD, CODE = type(ring.ready), type((lambda: None).__code__)

_numbers, _texts = {}, []
sent = {0}  # numbers of the texts that this ring has
infos, _places = {}, {}  # what is known of code objects and names, by their address
_library_dirs = ()


def start(library_dirs):
    """Take the folders of the standard library."""
    global _library_dirs  # noqa: PLW0603 (said once, by the bootstrap)
    _library_dirs = tuple(f"{folder}/" for folder in library_dirs)


def forget_sent():
    """A new ring has no texts."""
    sent.intersection_update({0})


def number_of(text):
    """Return the number of a text, 0 if there are too many. A long text keeps its end."""
    number = _numbers.get(text)
    if number is None:
        if len(_texts) >= 4 * _MAX_ENTRIES:
            return 0
        data = text.encode("utf-8", "replace")
        if len(data) > _MAX_TEXT:
            data = data[-_MAX_TEXT:]
            while data and data[0] & 0xC0 == 0x80:  # do not start inside a character
                data = data[1:]
        _texts.append(data)
        number = _numbers[text] = len(_texts)
    return number


def send(number):
    """Write a text into the ring unless this ring has it; a lost one is tried again."""
    if number in sent:
        return number
    data, now, tid = _texts[number - 1], monotonic_ns(), this_thread().tid
    pieces = [
        r.STRING.pack(
            now, tid, len(data), r.KIND_STRING, 0, number, at, 0, data[at : at + _PIECE_BYTES]
        )
        for at in range(0, len(data) or 1, _PIECE_BYTES)
    ]
    if ring.write(r.KIND_STRING, b"".join(pieces)):
        sent.add(number)
    return number


class Info:
    """What is known of a code object, or of a name that stands for code without one."""

    def __init__(self, key):
        """Look at a code object or a name."""
        self.key = key
        self.name = key  # a coroutine's that was asked for last, and its number
        self.name_number = 0
        if type(key) is CODE:
            file = key.co_filename
            name = getattr(key, "co_qualname", key.co_name)  # from 3.11 on
            part = _asyncio_part(file)
            self.library = _is_library(file)
            self.asyncio = part is not None
            # its locks and queues, which other parts of it are built on
            self.primitive = part in ("locks.py", "queues.py")
            self.leaf = number_of(f"{file}:{name}")
            self.defined = number_of(f"{file}:{key.co_firstlineno}")
        else:
            self.library, self.asyncio, self.primitive = True, False, False
            self.leaf = number_of(f"<compiled>:{key}")
            self.defined = number_of("<compiled>")


def _is_library(file):
    inside = "/site-packages/" in file or "/dist-packages/" in file
    return inside or file.startswith(("<frozen", *_library_dirs))


def _asyncio_part(file):
    for folder in _library_dirs:
        if file.startswith(folder + "asyncio/"):
            return file[len(folder) + 8 :]
    return None


def info_of(key):
    """Return what is known of a code object, or of the name of a coroutine without one."""
    info = infos.get(id(key))
    if info is None:
        info = Info(key)
        if len(infos) < _MAX_ENTRIES:
            infos[id(key)] = info
    return info


def line_of(frame, code):
    """Return the number of "file:line" of the instruction at which a frame is suspended."""
    key = (id(code), frame.f_lasti)
    number = _places.get(key)
    if number is None:
        number = number_of(f"{code.co_filename}:{frame.f_lineno}")
        if len(_places) < _MAX_ENTRIES and id(code) in infos:
            _places[key] = number
    return number


def callback_name(callback):
    """Return the number of a callback's qualified name; a partial has its function's."""
    if type(callback) is METHOD:
        callback = callback.__func__
    kind = type(callback)
    if kind is str:  # of what has only a name
        return number_of(callback)
    if kind is FUNCTION or kind is BUILTIN:
        return number_of(callback.__qualname__)
    if kind.__name__ == "partial" and kind.__module__ == "functools":
        inner = callback.func
        return number_of("functools.partial") if type(inner) is kind else callback_name(inner)
    return number_of(kind.__name__)
