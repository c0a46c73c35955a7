"""Ground truth: an aiohttp client session against an aiohttp server on the same loop.

Each request's body and answer have lengths that no other has. The server's handler reads the body
and sends the answer; aiohttp runs it in one task for each connection, which the client names in a
header so that the test knows whose bytes are whose. See running.py for the output.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import aiohttp
import running
from aiohttp import web
from truth import wait

SERVED: Counter[tuple[str, str]] = Counter()


async def handle(request: web.Request) -> web.Response:
    """Answer with as many bytes as the request asks for, and note what its task moved."""
    task = asyncio.current_task()
    body = await request.read()
    length = int(request.headers["X-Answer"])
    name = task.get_name() if task else ""
    SERVED[name, "recv"] += len(body)
    SERVED[name, "sent"] += length
    SERVED[name, "requests"] += 1
    return web.Response(body=b"a" * length)


async def several(session: aiohttp.ClientSession, url: str, calls: int) -> None:
    """Post one request after the other."""
    for _ in range(calls):
        sent, recv = running.lengths()
        with wait("post", sent=sent, recv=recv):
            async with session.post(url, data=b"q" * sent, headers={"X-Answer": str(recv)}) as got:
                assert len(await got.read()) == recv


async def main(tasks: int, calls: int) -> list[dict[str, Any]]:
    """Let all tasks share the session's connections; return what the server's tasks moved."""
    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    connector = aiohttp.TCPConnector(limit=4)
    async with aiohttp.ClientSession(connector=connector) as session:
        named = {
            f"aiohttp-{n:02d}": several(session, f"http://{host}:{port}/", calls)
            for n in range(tasks)
        }
        await running.together(named)
    await runner.cleanup()
    names = {name for name, _what in SERVED}
    whats = ("sent", "recv", "requests")
    return [{"task": name, **{w: SERVED[name, w] for w in whats}} for name in sorted(names)]


if __name__ == "__main__":
    options = running.parser(__doc__).parse_args()
    served: list[dict[str, Any]] = []

    async def noted() -> None:
        """Keep what main returns: neither loop's run does on every version."""
        served.extend(await main(tasks=16, calls=7))

    running.run(noted(), options.loop)
    running.tell("aiohttp_both", served=served)
