"""Large bodies: `bodies.py upstream PORT` takes and gives them, `bodies.py upload|download|both PORT PARALLEL KEY PID` moves
them through the connector with that process id and prints its memory as a line of a table."""
import asyncio
import re
import sys
from pathlib import Path

SIZE = 10 << 20
PIECE = bytes(range(256)) * 64


async def read_head(reader):
    return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()


async def read_body(reader, head):
    """The number of bytes of a body of known length."""
    length = int(re.search(r"content-length: (\d+)", head).group(1))
    left = length
    while left:
        piece = await reader.read(min(left, 1 << 16))
        if not piece:
            sys.exit("a body broke off")
        left -= len(piece)
    return length


async def write_body(writer):
    for _ in range(SIZE // len(PIECE)):
        writer.write(PIECE)
        await writer.drain()


async def serve(reader, writer):
    """The upstream: an upload is counted, a download is given."""
    try:
        while True:
            head = await read_head(reader)
            if head.startswith("post"):
                answer = b'{"size": %d}' % await read_body(reader, head)
                writer.write(b"HTTP/1.1 201 Created\r\ncontent-length: %d\r\n\r\n%s" % (len(answer), answer))
            else:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % SIZE)
                await write_body(writer)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def upstream(port):
    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


async def call(what, port, key):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    upload = what == "upload"
    line = "POST /proxy/seller-1/v1/customers" if upload else "GET /proxy/seller-1/v1/payments/search"
    length = f"content-length: {SIZE}\r\n" if upload else ""
    writer.write(f"{line} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n{length}\r\n".encode())
    if upload:
        await write_body(writer)
    head = await read_head(reader)
    size = await read_body(reader, head)
    if " 20" not in head.splitlines()[0] or (not upload and size != SIZE):
        sys.exit(f"wrong answer: {head}")
    writer.close()


def memory(pid, name):
    return int(re.search(name + r":\s+(\d+)", Path(f"/proc/{pid}/status").read_text()).group(1)) / 1024


async def drive(what, port, parallel, key, pid):
    before = memory(pid, "VmRSS")
    # From here on the peak counts anew (proc(5), clear_refs).
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    kinds = ["upload", "download"] if what == "both" else [what]
    await asyncio.gather(*(call(kind, port, key) for kind in kinds for _ in range(parallel)))
    peak = memory(pid, "VmHWM")
    await asyncio.sleep(1)
    print(f"| {what} | {before:.1f} | {peak:.1f} | {memory(pid, 'VmRSS'):.1f} |", flush=True)


if sys.argv[1] == "upstream":
    asyncio.run(upstream(int(sys.argv[2])))
else:
    what, port, parallel, key, pid = sys.argv[1:]
    asyncio.run(drive(what, int(port), int(parallel), key, int(pid)))
