"""Ground truth: streams over TLS: the bytes of a row are the encrypted ones, several records each.

Requests and answers have lengths that no other has; a record carries at most 16 KiB and adds 22
bytes (TLS 1.3: header, type, tag). See coded.py for the output.
"""

from __future__ import annotations

import asyncio
import ssl

import coded
from truth import wait


async def several(port: int, context: ssl.SSLContext, calls: int) -> None:
    """Make calls one after the other over a connection of its own."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost"
    )
    for _ in range(calls):
        sent, recv = coded.lengths()
        with wait("call", sent=sent, recv=recv):
            writer.write(coded.request(sent, recv))
            await reader.readexactly(recv)
    writer.close()


async def main(certificate: str, tasks: int = 8, calls: int = 11) -> None:
    """Let each task have a connection."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate)
    server_side.num_tickets = 0  # they would come with a client's first answer
    client_side = ssl.create_default_context(cafile=certificate)
    server = await asyncio.start_server(coded.serve, "127.0.0.1", 0, ssl=server_side)
    port = server.sockets[0].getsockname()[1]
    await coded.together({f"tls-{n:02d}": several(port, client_side, calls) for n in range(tasks)})
    server.close()


if __name__ == "__main__":
    coded.run(__doc__, main, "certificate")
    coded.tell("tls_streams")
