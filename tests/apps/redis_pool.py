"""Ground truth: redis.asyncio, a pool of 4 connections under 16 tasks, pipelines and a subscriber.

Values written and read have lengths that no other has. See coded.py for the output.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import coded
import redis.asyncio
from truth import wait


async def several(client: Any, key: str, calls: int) -> None:
    """Write a value and read another, alone and as one pipeline."""
    for call in range(calls):
        sent, recv = coded.lengths()
        with wait("set", sent=recv, recv=0):
            await client.set(key, b"a" * recv)
        with wait("get", sent=0, recv=recv):
            assert len(await client.get(key)) == recv
        if call % 2:
            pipeline = client.pipeline(transaction=False)
            pipeline.set(f"{key}-more", b"q" * sent)
            pipeline.get(key)
            with wait("pipeline", sent=sent, recv=recv):
                await pipeline.execute()


async def subscribe(client: Any, ready: asyncio.Event, messages: int) -> None:
    """Wait for messages; each says its own length."""
    async with client.pubsub() as channel:
        await channel.subscribe("news")
        await channel.get_message(timeout=5)
        ready.set()
        for _ in range(messages):
            with wait("message", sent=0) as noted:
                got = None
                while got is None:
                    got = await channel.get_message(ignore_subscribe_messages=True, timeout=5)
                noted["recv"] = len(got["data"])


async def publish(client: Any, messages: int) -> None:
    """Send messages, each when the one before has arrived."""
    for _ in range(messages):
        sent, _recv = coded.lengths()
        with wait("publish", sent=sent, recv=0):
            await client.publish("news", b"n" * sent)
        await asyncio.sleep(0.005)


async def main(port: str, tasks: int = 16, calls: int = 5) -> None:
    """Let all tasks share the pool, then publish to a subscriber."""
    pool = redis.asyncio.BlockingConnectionPool(host="127.0.0.1", port=int(port), max_connections=4)
    client = redis.asyncio.Redis(connection_pool=pool)
    await coded.together(
        {f"redis-{n:02d}": several(client, f"key-{n}", calls) for n in range(tasks)}
    )
    ready = asyncio.Event()
    subscriber = asyncio.create_task(subscribe(client, ready, 7), name="subscriber")
    await ready.wait()
    await coded.together({"publisher": publish(client, 7)})
    await subscriber
    with contextlib.suppress(AttributeError):  # redis 4 has only close()
        await client.aclose()
    await pool.disconnect()


if __name__ == "__main__":
    coded.run(__doc__, main, "redis")
    coded.tell("redis_pool")
