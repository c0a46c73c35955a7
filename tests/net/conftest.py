"""The recordings that every invariant is checked on: all that the tests in this folder make."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1]))
from coded_loads import LOADS, peers
from tracing import (
    EAGER_PYTHONS,
    LOOP_KINDS,
    LOOPS,
    MULTIPLEX,
    SHAPES,
    Traced,
    interpreter,
    on,
    pool,
    pools,
    traced,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["pool", "pools", "recording", "traced"]

_RECORDINGS: dict[str, Callable[..., Traced]] = {
    **{f"streams-{n}": lambda traced, n=n: traced("streams.py", level=n) for n in (1, 2, 3)},
    **{
        f"multiplex-{name}": lambda traced, args=args: traced("multiplex.py", *args)
        for name, args in MULTIPLEX.items()
    },
    **{name: lambda traced, name=name: traced("shapes.py", name) for name in SHAPES},
    **{f"loops-{mode}": lambda traced, mode=mode: traced("loops.py", mode) for mode in LOOPS},
    "uvloop-streams": lambda traced: traced("streams.py", *on("uvloop")),
    "uvloop-multiplex": lambda traced: traced("multiplex.py", *on("uvloop")),
    "loops-eager": lambda traced: traced("loops.py", "eager", python=interpreter(*EAGER_PYTHONS)),
}


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Give the option that names a certificate for localhost."""
    with peers(tmp_path_factory.mktemp("certificate")) as made:
        yield made.options(LOADS["tls_streams"])


@pytest.fixture(
    scope="session",
    params=[
        *_RECORDINGS,
        *(pytest.param(f"pool-{loop}", marks=pytest.mark.postgres) for loop in LOOP_KINDS),
    ],
)
def recording(request: pytest.FixtureRequest) -> Any:
    """Give each recording in turn."""
    name, _, loop = request.param.partition("-")
    if name == "pool":
        return request.getfixturevalue("pools")(loop)
    return _RECORDINGS[request.param](request.getfixturevalue("traced"))
