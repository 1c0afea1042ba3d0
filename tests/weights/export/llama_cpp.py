"""llama.cpp in a process of its own: its threads and torch's wait for each other within one.

Run as a script it serves a model, and perhaps an adapter, until its standard input ends.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

WINDOW = 512


def serve(model: str, adapter: str | None, address: Path) -> None:
    """Write the address of a server to a file, and wait to be told to stop."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx, params.n_parallel = WINDOW, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.warmup = params.fit_params = False
    params.verbosity = 0
    if adapter is not None:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(adapter, 1.0)]
    server = xllamacpp.Server(params)
    address.write_text(server.listening_address, "utf-8")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()


class LlamaCpp:
    """A running llama.cpp with one model, and perhaps an adapter."""

    def __init__(self, model: Path, adapter: Path | None = None) -> None:
        address = model.with_suffix(".address")
        words = [sys.executable, __file__, str(model), str(adapter or ""), str(address)]
        self._child = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._child.stdout is not None
        for line in self._child.stdout:
            if line.strip().endswith(b"ready"):
                break
        else:
            self.close()
            raise AssertionError(f"llama.cpp did not load {model.name}")
        self.address = address.read_text("utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def close(self) -> None:
        """End the process."""
        self._child.kill()
        self._child.communicate()

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        """What one of its routes answers."""
        url, data = self.address + path, json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def ids(self, text: str, *, is_marked: bool = False) -> list[int]:
        """Ids as a prompt has them; special strings are read as tokens where `is_marked`."""
        body = {"content": text, "add_special": True, "parse_special": is_marked}
        return self.post("/tokenize", **body)["tokens"]

    def continue_ids(self, prompt: Sequence[int], num: int) -> list[int]:
        """What it says next, always its likeliest token."""
        body = {
            "prompt": list(prompt), "n_predict": num, "temperature": 0.0, "return_tokens": True,
            "cache_prompt": False, "samplers": ["temperature"],
        }  # fmt: skip
        return self.post("/completion", **body)["tokens"]


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2] or None, Path(sys.argv[3]))
