"""The part of Mermaid's syntax that exports use (mermaid.js.org: flowchart, sequenceDiagram)."""

from __future__ import annotations

import re

_LABEL = r"([\w\s.,()/→…–+=µ:#;-]|<br/>)+"
_SHAPES = [
    r"flowchart TD|sequenceDiagram|\s+end",
    rf'\s+subgraph L\d\["{_LABEL}"\]',
    rf'\s+S\d+\["{_LABEL}"\]',
    r"\s+S\d+ --> S\d+",
    rf"\s+participant \w+ as {_LABEL}",
    rf"\s+\w+-?->>\w+: {_LABEL}",
    rf"\s+Note over \w+: {_LABEL}",
]


def diagrams(text: str) -> list[str]:
    """Return the diagrams in a Markdown text; each line of each must be of the syntax."""
    found = re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL)
    for line in "\n".join(found).splitlines():
        assert not line or any(re.fullmatch(shape, line) for shape in _SHAPES), line
    return found
