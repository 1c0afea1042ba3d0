"""How much personal data redaction finds, and what it costs: `make bench NAME=redaction`.

Caveats first. The 1,500 texts are synthetic, from templates, in English around names, numbers and
addresses of many countries; 14 IP addresses and 21 IBANs say little about all there are, which is
what the intervals are for. A span counts as found where one placeholder of its kind covers all of
it. The half of the texts whose SHA-256 begins with an odd digit is reported beside all, but it is
no fresh sample: the telephone numbers, cards and IP addresses of both halves had been read before
the rules were written, and nothing had to be tuned after. Precision counts what overlaps
a span of the kind; the data marks no keys. Needs OWN_TEST_DATA.

Cases, fixed: `<kind> other_half` and `<kind> all` for email, card, iban, ip, phone and ssn, with
recall and precision and their 95 % Wilson intervals; `placeholders <file>`, how many are put into
1,000 records of traffic that holds no personal data of anybody, by kind (shell commands and SQL
questions do hold made-up addresses and numbers, which are found rightly); `placeholders corpus`, in
10 million characters of books and handbooks. `cpu_us <body> <kinds>` is the processor time of
redacting one record, beside what the store takes to encode the same record (ratio above 1:
redaction is cheaper); the default is `key` alone, `all` is all patterns; bodies are a request of
300 characters, one of 100 kB of prose, and one of 100 kB of JSON.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.result import circumstances, ratio_line
from ownweights.core.project import Project
from ownweights.traffic import Record, make_record
from ownweights.traffic.encode import encode_bodies
from ownweights.traffic.redact import PATTERN_KINDS, Placeholders, Redactor, find_spans
from ownweights.traffic.redact.placeholder import PLACEHOLDER

BENCH = "redaction"
KIND_OF = {"EMAIL_ADDRESS": "email", "CREDIT_CARD": "card", "IBAN_CODE": "iban",
           "IP_ADDRESS": "ip", "PHONE_NUMBER": "phone", "US_SSN": "ssn"}  # fmt: skip
BARS = {"email": 0.98, "card": 0.98, "iban": 0.98, "ip": 0.98, "phone": 0.90}
TRAFFIC = ("assistant", "commands", "describe", "shell", "sql-gpt4")
Z_95 = 1.959964
CORPUS_CHARS = 10_000_000
REPEATS, QUICK_REPEATS = 15, 5


@dataclass(slots=True)
class Tally:
    """What was found of one kind: spans marked, those found, our spans, those right."""

    marked: int = 0
    found: int = 0
    ours: int = 0
    right: int = 0
    missed: list[str] = field(default_factory=list[str])


def cases(*, is_quick: bool, seed: int) -> Iterator[dict[str, Any]]:
    """Recall and precision by kind, placeholders where there is nothing, and the cost."""
    folder = os.environ.get("OWN_TEST_DATA")
    if not folder:
        raise SystemExit("set OWN_TEST_DATA to the folder of the public data")
    data = Path(folder)
    for case, is_in in (("other_half", is_other_half), ("all", lambda text: True)):
        for kind, tally in tallies(data, is_in).items():
            yield _found_line(f"{kind} {case}", tally, seed)
    for name in TRAFFIC:
        yield _placeholders_line(name, traffic(data, name), seed)
    yield _corpus_line(data, seed)
    yield from _costs(data, QUICK_REPEATS if is_quick else REPEATS, seed)


def is_other_half(text: str) -> bool:
    """Whether a text is of the half that is reported beside all."""
    return int(hashlib.sha256(text.encode()).hexdigest()[0], 16) % 2 == 1


def tallies(data: Path, is_in: Callable[[str], bool]) -> dict[str, Tally]:
    """By kind, what was found in the marked texts."""
    found = {kind: Tally() for kind in KIND_OF.values()}
    rows = json.loads((data / "presidio_pii" / "synth_dataset_v2.json").read_text("utf-8"))
    for row in rows:
        if is_in(row["full_text"]):
            _count(row, found)
    return found


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share. Source: Wilson (1927)."""
    if trials == 0:
        return 0.0, 1.0
    share, z2 = successes / trials, Z_95**2 / trials
    middle = (share + z2 / 2) / (1 + z2)
    half = Z_95 / (1 + z2) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials))
    return max(0.0, middle - half), min(1.0, middle + half)


def traffic(data: Path, name: str) -> list[Record]:
    """The records of one file of public traffic."""
    records: list[Record] = []
    with gzip.open(data / "traffic" / f"{name}.jsonl.gz") as file:
        for line in file:
            row = json.loads(line)
            records.append(make_record(row["request"], row["response"], role="imported"))
    return records


def placeholders_in(records: Sequence[Record]) -> Counter[str]:
    """By kind, how many values redaction replaces in records."""
    with tempfile.TemporaryDirectory() as folder:
        redactor = Redactor(PATTERN_KINDS, Placeholders(Project(Path(folder))))
        masked = [redactor.record(record) for record in records]
    counts: Counter[str] = Counter()
    for record in masked:
        for found in PLACEHOLDER.findall(json.dumps([record.request, record.response])):
            counts[found[1:].split("_")[0].lower()] += 1
    return counts


def _count(row: Mapping[str, Any], found: Mapping[str, Tally]) -> None:
    text = row["full_text"]
    spans = find_spans(text, PATTERN_KINDS)
    marked = [(span["start_position"], span["end_position"], KIND_OF[span["entity_type"]])
              for span in row["spans"] if span["entity_type"] in KIND_OF]  # fmt: skip
    for start, end, kind in marked:
        found[kind].marked += 1
        if any(one.kind == kind and one.start <= start and end <= one.end for one in spans):
            found[kind].found += 1
        else:
            found[kind].missed.append(text[start:end])
    for one in spans:
        if one.kind in found:
            found[one.kind].ours += 1
            found[one.kind].right += any(
                kind == one.kind and start < one.end and one.start < end
                for start, end, kind in marked
            )


def _found_line(case: str, tally: Tally, seed: int) -> dict[str, Any]:
    bar = BARS.get(case.partition(" ")[0])
    return {
        "bench": BENCH, "case": case,
        "recall": _share(tally.found, tally.marked), "spans": tally.marked,
        "recall_ci95": _interval(tally.found, tally.marked),
        "precision": _share(tally.right, tally.ours), "found": tally.ours,
        "precision_ci95": _interval(tally.right, tally.ours),
        **circumstances(bar, "presidio-research synth_dataset_v2", 1, seed, ("ownweights",)),
    }  # fmt: skip


def _placeholders_line(name: str, records: Sequence[Record], seed: int) -> dict[str, Any]:
    counts = placeholders_in(records)
    return {
        "bench": BENCH, "case": f"placeholders {name}",
        "per_1000": {kind: round(1000 * num / len(records), 3) for kind, num in counts.items()},
        **circumstances(None, f"{len(records)} records", 1, seed, ("ownweights",)),
    }  # fmt: skip


def _corpus_line(data: Path, seed: int) -> dict[str, Any]:
    text = _prose(data, CORPUS_CHARS)
    counts = Counter(span.kind for span in find_spans(text, PATTERN_KINDS))
    return {
        "bench": BENCH, "case": "placeholders corpus", "in_all": dict(counts),
        **circumstances(None, f"{len(text)} characters", 1, seed, ("ownweights",)),
    }  # fmt: skip


def _costs(data: Path, repeats: int, seed: int) -> Iterator[dict[str, Any]]:
    prose = _prose(data, 400_000)
    rows = [{"id": n, "name": f"item {n}", "price": n * 1.5, "when": "2024-01-02T03:04:05",
             "text": prose[n * 40 : n * 40 + 60]} for n in range(750)]  # fmt: skip
    bodies = {
        "small": [_record(prose[n : n + 200], prose[n : n + 100]) for n in range(0, 40_000, 200)],
        "100kB": [_record(prose[n : n + 99_000], prose[:1000]) for n in (0, 100_000, 200_000)],
        "100kB_json": [_record(json.dumps(rows), "fine")],
    }
    with tempfile.TemporaryDirectory() as folder:
        placeholders = Placeholders(Project(Path(folder)))
        for body, records in bodies.items():
            for word, kinds in (("key", ("key",)), ("all", PATTERN_KINDS)):
                redact = Redactor(kinds, placeholders).record
                times = [(_cpu_us(redact, records), _cpu_us(_encode, records))
                         for _ in range(repeats)]  # fmt: skip
                yield ratio_line(
                    BENCH, f"cpu_us {body} {word}", ours=[ours for ours, _ in times],
                    peer=[peer for _, peer in times], peer_name="encode_bodies", unit="us",
                    is_less_better=True, workload=f"{len(records)} records without personal data",
                    seed=seed, packages=("ownweights",),
                )  # fmt: skip


def _record(asked: str, answer: str) -> Record:
    messages = [{"role": "system", "content": "You help with orders."},
                {"role": "user", "content": asked}]  # fmt: skip
    choice = {"index": 0, "message": {"role": "assistant", "content": answer}}
    response = {"id": "chatcmpl-1", "model": "m", "choices": [choice]}
    return make_record({"model": "m", "messages": messages}, response, role="teacher")


def _encode(record: Record) -> Any:
    return encode_bodies(record.request, record.response)


def _cpu_us(work: Callable[[Record], Any], records: Sequence[Record]) -> float:
    start = time.process_time()
    for record in records:
        work(record)
    return (time.process_time() - start) / len(records) * 1e6


def _prose(data: Path, chars: int) -> str:
    texts: list[str] = []
    for path in sorted((data / "corpus").rglob("*.gz")):
        texts.append(gzip.decompress(path.read_bytes()).decode("utf-8", "ignore"))
        if sum(map(len, texts)) >= chars:
            break
    return "".join(texts)[:chars]


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _interval(part: int, whole: int) -> list[float]:
    return [round(end, 4) for end in wilson(part, whole)]
