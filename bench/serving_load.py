"""The clients of bench/serving.py, in a process of their own: they ask on and on over open connections.

    python bench/serving_load.py PORT CLIENTS SECONDS FOLDER

Each sends the files of FOLDER as photos to `POST /search`, one after the other. Requests are made beforehand and
answers are read by their length alone, so that the clients take little of the machine that they measure. Prints
JSON: answers, seconds, statuses and latencies in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path

BOUNDARY = "bench-serving-boundary"
WARM_UP_S = 1.0


def request(content: bytes) -> bytes:
    """A whole HTTP request."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="photo"; filename="p"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
    lines = (
        "POST /search HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def client(
    port: int, number: int, requests: list[bytes], until: float, count_from: float
) -> tuple[list[float], Counter[str]]:
    """One client: latencies in ms of what was asked after the warm-up, and statuses."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    latencies, statuses = list[float](), Counter[str]()
    turn = number
    while (started := time.perf_counter()) < until:
        writer.write(requests[turn % len(requests)])
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        turn += 1
        if started >= count_from:
            latencies.append(1000 * (time.perf_counter() - started))
            statuses[head[9:12].decode()] += 1
    writer.close()
    return latencies, statuses


async def main() -> None:
    port, clients, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    requests = [request(path.read_bytes()) for path in sorted(Path(sys.argv[4]).iterdir())]
    count_from = time.perf_counter() + WARM_UP_S
    until = count_from + seconds
    answers = await asyncio.gather(*(client(port, number, requests, until, count_from) for number in range(clients)))
    statuses: Counter[str] = Counter()
    for _, counted in answers:
        statuses += counted
    latencies = sorted(one for found, _ in answers for one in found)
    print(json.dumps({"answers": len(latencies), "seconds": seconds, "statuses": statuses, "latencies_ms": latencies}))


if __name__ == "__main__":
    asyncio.run(main())
