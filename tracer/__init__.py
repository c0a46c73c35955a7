"""awaitscope: what really happens beneath an `await`."""

__version__ = "0.1.0"
