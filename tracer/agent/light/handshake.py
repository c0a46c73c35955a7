"""TLS handshakes: as handshake.c, but hooked where `ssl` calls what is in C."""

import sys
from time import monotonic_ns

from . import records as r
from .patch import replace
from .ready import native_begin
from .ring import ring, this_thread
from .run import run_serial

_SHAKE = "_awaitscope_handshake"  # 0: it is over, what is called then is none


def _begin(tls):
    serial = getattr(tls, _SHAKE, None)
    if serial is None:
        serial = run_serial()
        setattr(tls, _SHAKE, serial)
    thread = this_thread()
    native_begin(thread)
    return serial, thread.run, thread.tid


def _end(tls, begun, begin_ns, flags):
    serial, run, tid = begun
    end_ns = monotonic_ns()
    if flags:
        setattr(tls, _SHAKE, 0)
    record = r.HANDSHAKE.pack(begin_ns, tid, 0, r.KIND_HANDSHAKE, flags, end_ns, serial, run)
    ring.write(r.KIND_HANDSHAKE, record)


def _hooked(wants):
    """Return a maker of the hook on do_handshake, which raises `wants` where it is to go on."""

    def hooked(old):
        def do_handshake(self, *args, **kwargs):
            begun = None
            if ring.recording or ring.ready():
                try:
                    begun = _begin(self)
                except Exception:
                    ring.lose(r.KIND_HANDSHAKE)
            if not begun or not begun[0]:
                return old(self, *args, **kwargs)
            begin_ns, flags = monotonic_ns(), r.HANDSHAKE_FAILED
            try:
                result = old(self, *args, **kwargs)
                flags = r.HANDSHAKE_OVER
            except wants:
                flags = 0
                raise
            finally:
                try:
                    _end(self, begun, begin_ns, flags)
                except Exception:
                    ring.lose(r.KIND_HANDSHAKE)
            return result

        return do_handshake

    return hooked


def install():
    """Put the hooks in place; without them no handshake is seen, nothing else."""
    ssl = sys.modules.get("ssl")
    if ssl is not None:
        hooked = _hooked((ssl.SSLWantReadError, ssl.SSLWantWriteError))
        replace(ssl.SSLObject, "do_handshake", hooked)
        replace(ssl.SSLSocket, "do_handshake", hooked)
