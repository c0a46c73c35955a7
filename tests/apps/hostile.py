"""An app whose names try to break out of a page: markup, scripts, control characters, all in one.

The last line of stdout is JSON: `names`, of its tasks.
"""

from __future__ import annotations

import asyncio
import json

NAMES = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "'\"><svg/onload=document.title='owned'>",
    "{{ 7 * 7 }}{% raw %}",
    "a\x1b[31mred\x1b[0m\u202eright to left\u2028next line",
    "ein Näme, 名前, 🦊",
)


async def wait() -> None:
    """Suspend."""
    await asyncio.sleep(0.02)


async def main() -> None:
    """Give each name to a task."""
    await asyncio.gather(*(asyncio.create_task(wait(), name=name) for name in NAMES))


asyncio.run(main())
print(json.dumps({"names": NAMES}))
