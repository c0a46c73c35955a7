"""Plain values of a row, for JSON and CSV."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tracer.report.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping


def plain(value: Any) -> Any:  # noqa: ANN401 (whatever json does not know)
    """Return what json can write in place of a value that it does not know."""
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value)


def flat_row(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a row for CSV: nested keys joined by a dot, lists by a semicolon."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat.update(flat_row(value, f"{prefix}{key}."))
        elif isinstance(value, (list, tuple)):
            flat[prefix + key] = ";".join(
                json.dumps(v, default=plain) if isinstance(v, dict) else printable(str(v))
                for v in value
            )
        elif isinstance(value, str):
            flat[prefix + key] = printable(value)
        else:
            flat[prefix + key] = value
    return flat
