"""`own traffic`: what was asked and answered, and ways in and out of the store."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ownweights.cli.main import project_of
from ownweights.cli.options import filter_of, filter_options, workload_name
from ownweights.cli.output import Progress, json_option, print_json, print_rows, say, shown_text
from ownweights.cli.traffic.retention import delete, prune
from ownweights.core.errors import EXIT_ERROR, UsageError

if TYPE_CHECKING:
    from ownweights.traffic import ImportReport, Record, TrafficStore
    from ownweights.traffic.query import RecordRow, Stats
    from ownweights.traffic.redact import Privacy

_SNIPPET_CHARS = 60
_SHOWN = ("id", "at", "workload", "session", "role", "status", "model", "asks")
_DIMENSIONS = (
    "workload", "status", "role", "model", "day", "upstream", "protocol", "key_id",
)  # fmt: skip
_TOLD = (
    *_DIMENSIONS, "records", "ok", "partial", "error", "prompts", "sessions", "pruned",
    "body_bytes", "cost_usd", "unpriced", "p50_ms", "p95_ms", "first", "last", "models",
)  # fmt: skip


@click.group()
def traffic() -> None:
    """What was asked and answered: import, list, search, export, delete."""


@traffic.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--workload", callback=workload_name, metavar="NAME", help="Store all under this workload."
)
@click.option(
    "--redact/--no-redact",
    "is_redacted",
    default=None,
    help="Mask all that patterns find, or nothing at all.  [default: as own.toml says]",
)
@json_option
@click.pass_context
def import_(
    ctx: click.Context, files: tuple[Path, ...], *, workload: str | None,
    is_redacted: bool | None, as_json: bool,
) -> None:  # fmt: skip
    """Store the chats in FILES: JSON lines, JSON or CSV, plain or gzip.

    A line is {id, request, response, metadata}, or {messages: [..., assistant], tools} as for
    OpenAI fine-tuning; exports of Langfuse (observations) and LiteLLM (spend logs) are read too.
    Importing a file again adds nothing.
    """
    from ownweights.traffic import TrafficStore, import_file

    privacy = _privacy(ctx, is_redacted=is_redacted)
    with TrafficStore.open(project_of(ctx), is_power_safe=True) as store:
        for file in files:
            with Progress(f"importing {file.name}") as progress:
                report = import_file(
                    file, store, workload=workload, privacy=privacy, on_progress=progress
                )
            _print_report(file, report, as_json=as_json)


@traffic.command("list")
@filter_options
@click.option("--before", metavar="ID", help="Only records older than this one, for the next page.")
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(1, 10_000), help="How many."
)
@json_option
@click.pass_context
def list_(
    ctx: click.Context, *, before: str | None, limit: int, as_json: bool, **only: Any
) -> None:
    """The newest records, one a line."""
    from ownweights.traffic.query import page

    with _open_store(ctx) as store:
        top = None if before is None else _row(store, before).seq
        rows = page(store.database, filter_of(only), before=top, limit=limit)
        shown = [_summary(row, store.get(row.id)) for row in rows]
    keys = shown[0].keys() if as_json and shown else _SHOWN
    print_rows(
        [{key: row[key] for key in keys} for row in shown], as_json=as_json,
        empty="no record matches",
    )  # fmt: skip


@traffic.command()
@click.argument("by", type=click.Choice(_DIMENSIONS))
@filter_options
@json_option
@click.pass_context
def facets(ctx: click.Context, by: str, as_json: bool, **only: Any) -> None:
    """How many records there are by workload, status, role, model, day and so on."""
    from ownweights.traffic.query import facets

    with _open_store(ctx) as store:
        found = facets(store.database, filter_of(only), by)
    rows = [{by: _day(name) if by == "day" else name, "records": count} for name, count in found]
    print_rows(rows, as_json=as_json, empty="no record matches")


@traffic.command()
@click.argument("record_id", metavar="ID")
@json_option
@click.pass_context
def show(ctx: click.Context, record_id: str, as_json: bool) -> None:
    """One record: its conversation and answer. The beginning of ID will do."""
    from ownweights.traffic.feedback import feedback_of

    with _open_store(ctx) as store:
        row = _row(store, record_id)
        record = store.get(row.id)
        said = feedback_of(store.database, request_id=row.id, session=row.session)
    if record is None:
        facts = _summary(row, None)
        print_json(facts) if as_json else print_rows([{key: facts[key] for key in _SHOWN}])
        say(f"its bodies were taken out on {_time(row.pruned_at or 0)}")
        return
    if as_json:
        print_json({**dataclasses.asdict(record), "feedback": said})
        return
    facts = _summary(row, record)
    print_rows([{key: facts[key] for key in _SHOWN if key != "asks"}])
    for who, text in _passages(record):
        click.echo(shown_text(f"\n[{who}]\n{text}"))
    for one in said:
        click.echo(shown_text(f"\n[feedback {one.name} {_time(one.at)}]\n{_shown(one.value)}"))


@traffic.command()
@click.option(
    "--by", type=click.Choice(_DIMENSIONS), default="workload", show_default=True,
    help="One row for each of these.",
)  # fmt: skip
@filter_options
@json_option
@click.pass_context
def stats(ctx: click.Context, by: str, as_json: bool, **only: Any) -> None:
    """Each workload in numbers, or each model, day and so on."""
    from ownweights.traffic.query import distinct, stats

    wanted = filter_of(only)
    with _open_store(ctx) as store:
        found = stats(store.database, wanted, by)
        is_whole = by == "workload" and filter_of({**only, "workload": None}).is_everything
        names = distinct(store.database) if is_whole else {}
        models = store.models() if is_whole else {}
    rows = [_stats_row(by, one, names.get(one.name), models.get(one.name)) for one in found]
    if not as_json:
        rows = [{key: value for key, value in row.items() if key in _TOLD} for row in rows]
        for row in rows:
            row.update({k: ", ".join(row[k]) for k in ("models",) if k in row})
    print_rows(rows, as_json=as_json, empty="no record is stored")


@traffic.command()
@click.argument("text")
@filter_options
@click.option("--ignore-case", is_flag=True, help="Whether letters are large or small is nothing.")
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(1, 100_000), help="How many."
)
@json_option
@click.pass_context
def search(
    ctx: click.Context, text: str, *, ignore_case: bool, limit: int, as_json: bool, **only: Any
) -> None:
    """The newest records that hold TEXT in what was asked or answered.

    Bodies have no index: all that match the options are read until enough are found.
    """
    from itertools import islice

    from ownweights.traffic.query import count
    from ownweights.traffic.search import SearchCounts, search

    wanted, counts = filter_of(only), SearchCounts()
    start = time.monotonic()
    with _open_store(ctx) as store:
        total = count(store.database, wanted)
        with Progress("searching", total=total) as progress:
            hits = search(store, text, only=wanted, counts=counts, ignore_case=ignore_case,
                          on_progress=progress)  # fmt: skip
            found = list(islice(hits, limit))
    rows = [
        {"id": hit.id, "at": _time(hit.at), "workload": hit.workload, "where": hit.path,
         "around": hit.around}
        for hit in found
    ]  # fmt: skip
    print_rows(rows, as_json=as_json, empty="no record holds it")
    say(f"read {counts.records:,} of {total:,} records, {counts.body_bytes / 2**20:,.1f} MiB,"
        f" in {time.monotonic() - start:.1f} s")  # fmt: skip
    if counts.unreadable:
        say(f"warning: {counts.unreadable} could not be read; own traffic verify says why")


@traffic.command()
@click.option("--repair", is_flag=True, help="Take out the rows whose bodies are lost.")
@json_option
@click.pass_context
def verify(ctx: click.Context, repair: bool, as_json: bool) -> int:
    """Read everything that is stored, and say what is damaged."""
    with _open_store(ctx) as store:
        report = store.verify(repair=repair)
    if as_json:
        print_json(report)
    else:
        for fault in report.faults:
            click.echo(fault)
        say(
            f"{report.records} records in {report.segments} segments"
            f" ({report.body_bytes:,} bytes): {len(report.damaged)} damaged"
            + (f", {report.repaired} taken out" if repair else "")
            + (f", {report.freed_bytes:,} bytes freed" if report.freed_bytes else "")
        )
    return 0 if report.is_sound or repair else EXIT_ERROR


@traffic.command()
@filter_options
@click.option(
    "--format", "export_format", default="own", show_default=True,
    type=click.Choice(["own", "openai", "langfuse", "litellm"]),
    help="Ours (every fact), OpenAI's for fine-tuning (whole answers), observations of Langfuse, or"
    " spend logs of LiteLLM (answered chats).",
)  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), help="A file; *.jsonl.gz is compressed.")
@json_option
@click.pass_context
def export(
    ctx: click.Context, *, export_format: Any, output: Path | None, as_json: bool, **only: Any
) -> None:
    """Records as JSON lines, on stdout or in a file."""
    from ownweights.traffic.exporter import export_file, export_line

    with _open_store(ctx) as store:
        records = store.matching(filter_of(only))
        if output is not None:
            written = export_file(records, output, export_format)
            facts = {"file": str(output), "records": written}
            print_json(facts) if as_json else say(f"{output}: {written} records")
            return
        for record in records:
            if (line := export_line(record, export_format)) is not None:
                sys.stdout.buffer.write(line)


traffic.add_command(prune)
traffic.add_command(delete)


@contextmanager
def _open_store(ctx: click.Context) -> Iterator[TrafficStore]:
    from ownweights.traffic import TrafficStore

    with TrafficStore.open(project_of(ctx), create=False) as store:
        yield store


def _print_report(file: Path, report: ImportReport, *, as_json: bool) -> None:
    if as_json:
        print_json({"file": str(file), **dataclasses.asdict(report)})
        return
    click.echo(f"{file}: {report.read} read, {report.added} added, {report.duplicates} duplicates")
    for word, counts in (("skipped", report.skipped), ("kept, but note", report.noted)):
        for reason, count in sorted(counts.items(), key=lambda pair: -pair[1]):
            say(f"  {word}: {count} {reason}")
    for what in report.first_errors:
        say(f"  {what}")


def _row(store: TrafficStore, text: str) -> RecordRow:
    from ownweights.traffic.query import row_of

    ids = store.find_ids(text)
    if len(ids) > 1:
        raise UsageError(f"{text!r} is the beginning of several ids", hint=", ".join(ids[:4]))
    row = row_of(store.database, ids[0]) if ids else None
    if row is None:
        raise UsageError(f"there is no record {text!r}", hint="own traffic list shows the newest")
    return row


def _summary(row: RecordRow, record: Record | None) -> dict[str, Any]:
    from ownweights.traffic import asked_text

    asks = " ".join(asked_text(record.request).split()) if record else "(taken out)"
    return {
        "id": row.id, "at": _time(row.at), "workload": row.workload, "session": row.session,
        "role": row.role, "status": row.status, "model": row.model,
        "asks": asks if len(asks) <= _SNIPPET_CHARS else asks[: _SNIPPET_CHARS - 1] + "…",
        "end_user": row.end_user, "key_id": row.key_id, "protocol": row.protocol,
        "upstream": row.upstream, "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens, "cost_usd": row.cost_usd,
        "latency_ms": row.latency_ms, "body_bytes": row.body_bytes,
        "pruned": None if row.pruned_at is None else _time(row.pruned_at),
    }  # fmt: skip


def _privacy(ctx: click.Context, *, is_redacted: bool | None) -> Privacy:
    """What may be stored of an import: as the settings say, or as the flag does."""
    from ownweights.core.settings import load_settings
    from ownweights.gateway.settings import privacy_rules
    from ownweights.traffic.redact import Privacy

    project = project_of(ctx)
    rules = privacy_rules(load_settings(project))
    if is_redacted is not None:
        words = ("all", *(("name",) if rules.recognizer else ())) if is_redacted else ("none",)
        rules = dataclasses.replace(rules, redact=words, workload_redact={})
    return Privacy(project, rules)


def _stats_row(by: str, one: Stats, names: tuple[int, int] | None, models: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        by: _day(one.name) if by == "day" else one.name, "records": one.records, "ok": one.ok,
        "partial": one.partial, "error": one.error,
    }  # fmt: skip
    if names is not None:
        row |= {"prompts": names[0], "sessions": names[1]}
    row |= {
        "pruned": one.pruned, "body_bytes": one.body_bytes, "prompt_tokens": one.prompt_tokens,
        "completion_tokens": one.completion_tokens,
        "cost_usd": one.cost_usd if one.priced else None, "unpriced": one.records - one.priced,
        "timed": one.timed, "p50_ms": one.latency_p50_ms, "p95_ms": one.latency_p95_ms,
        "first": _time(one.first_at), "last": _time(one.last_at),
    }  # fmt: skip
    return row | ({} if models is None else {"models": list(models)})


def _day(number: int) -> str:
    return _time(number * 86_400.0)[:10]


def _shown(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _passages(record: Record) -> list[tuple[str, str]]:
    """What was said, turn by turn; as JSON where it is no chat, or was answered by none."""
    from ownweights.traffic import messages_of

    if record.protocol != "chat":
        return [("request", _shown(record.request)), ("response", _shown(record.response))]
    turns = [(str(one.get("role", "nobody")), _told(one)) for one in messages_of(record.request)]
    if record.message:
        return [*turns, (str(record.message.get("role", "nobody")), _told(record.message))]
    return [*turns, ("response", _shown(record.response))]


def _told(message: Any) -> str:
    import json

    from ownweights.traffic import content_text

    calls = message.get("tool_calls")
    text = content_text(message.get("content"))
    return "\n".join(filter(None, [text, json.dumps(calls, ensure_ascii=False) if calls else ""]))


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
