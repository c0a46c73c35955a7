"""Load awaitscope's agent into this process, then make way for the app's own sitecustomize.

Imported by `site` because this folder is first on PYTHONPATH. Does nothing without
AWAITSCOPE_LIVE. Whatever fails here is written to a `.none` file there and the app goes on.
"""

from __future__ import annotations

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))
_BUILD = os.path.join(os.path.dirname(_HERE), "build.py")
_LIGHT = os.path.join(os.path.dirname(_HERE), "light")
_SLOTS = 65536


class _Reason(Exception):
    """Why there is no agent: `code: detail`."""


def _module(name, path, folder=None):
    """Run a file as a module, or as the package in a folder, that `sys.modules` does not know."""
    import _frozen_importlib
    import _frozen_importlib_external

    loader = _frozen_importlib_external.SourceFileLoader(name, path)
    spec = _frozen_importlib.ModuleSpec(name, loader, origin=path, is_package=bool(folder))
    module = type(sys)(name)
    module.__file__, module.__spec__, module.__package__ = path, spec, name
    if folder:
        module.__path__ = spec.submodule_search_locations = [folder]
        sys.modules[name] = module  # while its parts import each other
    try:
        loader.exec_module(module)
    finally:
        for known in [known for known in sys.modules if known.partition(".")[0] == name]:
            del sys.modules[known]
    return module


def _spawn_build(build, cache):
    """Compile in a child, so that this process imports nothing for it; return the file's path."""
    if not sys.executable:
        raise _Reason("build_failed: the interpreter has no path")
    env = {k: v for k, v in os.environ.items() if not k.startswith("AWAITSCOPE_")}
    out, its = os.pipe()
    try:
        actions = [(os.POSIX_SPAWN_DUP2, its, 1)]
        actions += [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 2)]
        argv = [sys.executable, "-I", "-S", _BUILD, cache]
        pid = os.posix_spawn(sys.executable, argv, env, file_actions=actions)
    finally:
        os.close(its)
    with open(out, "rb") as pipe:
        path = os.fsdecode(pipe.read())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise _Reason(f"{build.reason_of(code)}: compiling the agent failed")
    return path


def _load(build, cache):
    import _frozen_importlib
    import _frozen_importlib_external
    import _imp

    # only the child works out the sources' hash: hashlib is the app's to import
    source = os.environ.get("AWAITSCOPE_SOURCES")
    try:
        path = source and build.cached(cache, source)
    except build.BuildError as error:
        raise _Reason(str(error)) from None
    path = path or _spawn_build(build, cache)
    name = "_awaitscope_agent"
    loader = _frozen_importlib_external.ExtensionFileLoader(name, path)
    try:
        return _imp.create_dynamic(_frozen_importlib.ModuleSpec(name, loader, origin=path))
    except ImportError as error:
        raise _Reason(f"build_failed: {error}") from None


def _started(cache, live, slots):
    """Return the agent, recording: the one in C, or where it cannot be built the one in Python."""
    build = _module("_awaitscope_build", _BUILD)
    library_dirs = (os.path.dirname(os.path.abspath(os.__file__)), _HERE)
    try:
        agent = _load(build, cache)
        agent.start(live, slots, library_dirs)
    except _Reason as error:
        code = str(error).partition(":")[0]
        if code not in build.LIGHT:
            raise
        agent = _module("_awaitscope_light", os.path.join(_LIGHT, "__init__.py"), _LIGHT)
        agent.start(live, slots, library_dirs, 1 + build.REASONS.index(code))
    return agent


def _report(handle, exc):
    """Do what the except clause of asyncio.events.Handle._run does."""
    from asyncio import format_helpers

    kwargs = {}
    names = format_helpers._format_callback_source.__code__.co_varnames
    if "debug" in names:
        kwargs["debug"] = handle._loop.get_debug()
    cb = format_helpers._format_callback_source(handle._callback, handle._args, **kwargs)
    context = {
        "message": f"Exception in callback {cb}",
        "exception": exc,
        "handle": handle,
    }
    if handle._source_traceback:
        context["source_traceback"] = handle._source_traceback
    handle._loop.call_exception_handler(context)


def _patch(agent):
    from asyncio import base_events, events, futures, tasks

    c_task = getattr(tasks, "_CTask", None)
    c_future = getattr(futures, "_CFuture", None)
    agent.install(
        base_events.BaseEventLoop,
        events.Handle,
        events.TimerHandle,
        c_task,
        c_future,
        getattr(tasks, "_PyTask", None),
        getattr(tasks, "_GatheringFuture", None),
        _report,
    )


def _patch_uvloop(agent):
    agent.install_uvloop(sys.modules["uvloop"].Loop)


class _Loader:
    """Loads a module with its own loader, then puts the hooks in."""

    def __init__(self, loader, then):
        self._loader = loader
        self._then = then

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._then()

    def __getattr__(self, name):
        return getattr(self._loader, name)


class _Finder:
    """Waits for the first import of some modules; `then` is what to do after it, by name."""

    def __init__(self, then):
        self._then = then

    def find_spec(self, name, path=None, target=None):
        if name not in self._then:
            return None
        for finder in list(sys.meta_path):
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                then = self._then.pop(name, None)
                if not self._then and self in sys.meta_path:
                    sys.meta_path.remove(self)
                if then and hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, then)
                return spec
        return None


def _give_up(live, error):
    """Leave the reason where awaitscope finds it."""
    import time

    text = str(error) if isinstance(error, (_Reason, RuntimeError)) else ""
    if ": " not in text:
        text = f"hooks_failed: {type(error).__name__}: {error}"
    path = os.path.join(live, f"{os.getpid()}-{time.monotonic_ns()}.none")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
        try:
            os.write(fd, (text.replace("\n", " ") + "\n").encode("utf-8", "replace"))
        finally:
            os.close(fd)
    except OSError:
        return


def _start():
    live = os.environ.get("AWAITSCOPE_LIVE")
    if not live or not os.path.isdir(live):
        return
    try:
        cache = os.environ.get("AWAITSCOPE_CACHE")
        if not cache:
            raise _Reason("unsafe_cache: AWAITSCOPE_CACHE is not set")
        slots = int(os.environ.get("AWAITSCOPE_RING_SLOTS") or _SLOTS)
        agent = _started(cache, live, slots)
    except Exception as error:
        _give_up(live, error)
        return

    def hook(patch):
        def patched():
            try:
                patch(agent)
            except Exception as error:
                agent.stop()
                _give_up(live, error)

        return patched

    then = {"asyncio.base_events": hook(_patch), "uvloop": hook(_patch_uvloop)}
    for name in [name for name in then if name in sys.modules]:
        then.pop(name)()
    if then:
        sys.meta_path.insert(0, _Finder(then))


def _make_way():
    """Run the app's own sitecustomize as `sitecustomize`, or be as if there was none."""
    from _frozen_importlib import module_from_spec
    from _frozen_importlib_external import PathFinder

    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _HERE]
    sys.path_importer_cache.pop(_HERE, None)
    spec = PathFinder.find_spec(__name__, sys.path)
    if spec is None or spec.loader is None:
        # What `site` expects, and passes over in silence, where nobody has customized it.
        raise ImportError(f"No module named {__name__!r}", name=__name__)
    module = module_from_spec(spec)
    sys.modules[__name__] = module
    spec.loader.exec_module(module)


_start()
_make_way()
