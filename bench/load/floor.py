"""uvicorn answering at once: what an HTTP server in Python costs before it does anything.

Run as a program with a port. It uses httptools, and uvloop where that is installed, as the gateway.
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn

ANSWER = b'{"id":"floor","object":"chat.completion","choices":[]}'.ljust(350)
HEAD = [(b"content-type", b"application/json"), (b"content-length", b"350")]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Read the request, answer."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEAD})
    await send({"type": "http.response.body", "body": ANSWER})


if __name__ == "__main__":
    uvicorn.run(
        app, host="127.0.0.1", port=int(sys.argv[1]), log_config=None, access_log=False,
        lifespan="off", ws="none", http="httptools", server_header=False,
    )  # fmt: skip
