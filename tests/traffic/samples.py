"""Small records, lines and files for the tests of traffic."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ownweights.core.project import Project
from ownweights.traffic import Record, TrafficStore, make_record

SYSTEM = "You answer in one word, and never say more than was asked for, whatever happens."


def ask(text: str = "hello", **fields: Any) -> dict[str, Any]:
    """A request."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
    return {"model": "big", "messages": messages, **fields}


def answer(text: Any = "hi", *, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    """A response."""
    said = {"role": "assistant", "content": text, **message}
    choice = {"index": 0, "message": said, "finish_reason": finish_reason}
    return {"model": "big-1", "choices": [choice]}


def make(text: str = "hello", reply: str = "hi", **fields: Any) -> Record:
    """A record of the workload `w`; `source_id` may be given."""
    source_id = fields.pop("source_id", None)
    given = {"role": "teacher", "workload": "w", **fields}
    return replace(make_record(ask(text), answer(reply), **given), source_id=source_id)


def line(number: int = 0, **changed: Any) -> dict[str, Any]:
    """A line of our chat format."""
    whole = {
        "id": f"id-{number}",
        "request": ask(f"question {number}"),
        "response": answer(f"answer {number}"),
        "metadata": {"workload": "w"},
    }
    whole.update(changed)
    return {key: value for key, value in whole.items() if value is not ...}


def write_lines(path: Path, lines: Sequence[Any]) -> Path:
    """A file of JSON lines (bytes as they are), gzip where the name ends in .gz."""
    encoded = [raw if isinstance(raw, bytes) else json.dumps(raw).encode() for raw in lines]
    data = b"".join(raw + b"\n" for raw in encoded)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def stored(project: Project, **only: Any) -> list[Record]:
    """All records of a project."""
    with TrafficStore.open(project) as store:
        return list(store.records(**only))


def run_python(script: str, *words: object) -> subprocess.Popen[str]:
    """A process of its own that runs the script."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def run_together(scripts: Sequence[Sequence[object]]) -> list[str]:
    """Start processes, let them go at once, and return what each printed; none may fail."""
    processes = [run_python(str(script), *words) for script, *words in scripts]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs: list[str] = []
    for process in processes:
        out, errors = process.communicate()
        assert process.returncode == 0, errors
        outputs.append(out)
    return outputs
