"""`python -m tests.serving.http.bare_service PORT`: two workers that answer slowly, with no model or index to load."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvicorn

from univert.serving.listening import bind
from univert.serving.workers import Workers


async def app(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(float(scope["query_string"]))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


if __name__ == "__main__":
    config = uvicorn.Config("tests.serving.http.bare_service:app", workers=2, lifespan="off", access_log=False)
    Workers(config, bind("127.0.0.1", int(sys.argv[1])), stop_s=10).run()
