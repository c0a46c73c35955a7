"""Ground truth: an httpx client with 4 connections under 16 tasks; requests take whichever is free.

Each request's body and answer have lengths that no other has. See coded.py for the output.
"""

from __future__ import annotations

import coded
import http_peer
import httpx
from truth import wait


async def several(client: httpx.AsyncClient, url: str, calls: int) -> None:
    """Post one request after the other."""
    for _ in range(calls):
        sent, recv = coded.lengths()
        with wait("post", sent=sent, recv=recv):
            got = await client.post(url, content=b"q" * sent, headers={"X-Answer": str(recv)})
        assert len(got.content) == recv


async def main(tasks: int = 16, calls: int = 7) -> None:
    """Let all tasks share the pool."""
    server, port = await http_peer.serve()
    limits = httpx.Limits(max_connections=4, max_keepalive_connections=4)
    url = f"http://127.0.0.1:{port}/"
    async with httpx.AsyncClient(limits=limits, trust_env=False) as client:
        named = {f"httpx-{n:02d}": several(client, url, calls) for n in range(tasks)}
        await coded.together(named)
    server.close()


if __name__ == "__main__":
    coded.run(__doc__, main)
    coded.tell("httpx_pool")
