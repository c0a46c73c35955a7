"""Hooks in the place of methods."""


def replace(kind, name, make):
    """Put a hook in the place of a method; False if that is not asyncio's own, in Python.

    Args:
        kind: the class.
        name: the method.
        make: takes the old one, returns the hook.

    """
    is_python = type(getattr(kind, name, None)) is type(replace)
    if is_python:
        put(kind, name, make)
    return is_python


def put(kind, name, make):
    """Put a hook in the place of a method, whatever that is."""
    old = getattr(kind, name)
    hook = make(old)
    hook.__name__, hook.__qualname__, hook.__doc__ = name, old.__qualname__, old.__doc__
    hook.__module__, hook.__wrapped__ = getattr(old, "__module__", kind.__module__), old
    setattr(kind, name, hook)
