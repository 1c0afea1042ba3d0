"""TensorZero's gateway out of its Python wheel: run in an environment that has it, in its folder.

It picks a port itself; the file `port` says which. The server is Rust; Python only sleeps.
"""

from __future__ import annotations

import signal
from pathlib import Path
from urllib.parse import urlsplit

import tensorzero  # pyright: ignore[reportMissingImports]

if __name__ == "__main__":
    gateway = tensorzero._start_http_gateway(
        config_file="tensorzero.toml",
        clickhouse_url=None,
        postgres_url=None,
        valkey_url=None,
        async_setup=False,
    )
    draft = Path("port.draft")
    draft.write_text(str(urlsplit(gateway.base_url).port))
    draft.rename("port")
    signal.pause()
