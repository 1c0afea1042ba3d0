"""Small corpora for the tests of pre-training: books, handbooks and recorded traffic."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def ask_line(messages: Sequence[Any]) -> dict[str, Any]:
    """A recorded request."""
    return {"request": {"model": "m", "messages": list(messages)}}


def write_traffic(path: Path, texts: Sequence[str]) -> Path:
    """Recorded requests with these questions, gzip."""
    lines = [ask_line([{"role": "user", "content": text}]) for text in texts]
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_bytes(gzip.compress(data.encode("utf-8"), mtime=0))
    return path


def write_books(corpus: Path, texts: Mapping[str, str]) -> None:
    """Books by file name."""
    (corpus / "books").mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (corpus / "books" / name).write_bytes(gzip.compress(text.encode("utf-8"), mtime=0))


def write_handbook(corpus: Path, name: str, pages: Sequence[str]) -> Path:
    """One handbook of pages."""
    path = corpus / f"text_{name}" / "docs.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"path": f"{k}.md", "text": page}) for k, page in enumerate(pages)]
    path.write_text("\n".join(lines), "utf-8")
    return path
