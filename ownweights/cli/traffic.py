"""`own traffic`: what was asked and answered, and ways in and out of the store."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ownweights.cli.main import project_of
from ownweights.cli.options import workload_name
from ownweights.cli.output import Progress, json_option, print_json, print_rows, say
from ownweights.core.errors import EXIT_ERROR, UsageError

if TYPE_CHECKING:
    from ownweights.traffic import ImportReport, Record, TrafficStore
    from ownweights.traffic.redact import Privacy

_SNIPPET_CHARS = 60

_workload_option = click.option(
    "--workload", callback=workload_name, metavar="NAME", help="Only this workload."
)
_status_option = click.option(
    "--status", type=click.Choice(["ok", "partial", "error"]), help="Only records with this status."
)


@click.group()
def traffic() -> None:
    """What was asked and answered: import, list, export."""


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
    """Store the chats in FILES: JSON lines, plain or gzip.

    A line is {id, request, response, metadata}, or {messages: [..., assistant], tools} as for
    OpenAI fine-tuning. Importing a file again adds nothing.
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
@_workload_option
@_status_option
@click.option("--session", metavar="NAME", help="Only this session.")
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(1, 2**31 - 1), help="How many."
)
@json_option
@click.pass_context
def list_(ctx: click.Context, *, limit: int, as_json: bool, **only: Any) -> None:
    """The newest records, one a line."""
    with _open_store(ctx) as store:
        rows = store.records(**only, limit=limit, is_newest_first=True)
        print_rows(map(_summary, rows), as_json=as_json, empty="no record matches")


@traffic.command()
@click.argument("record_id", metavar="ID")
@json_option
@click.pass_context
def show(ctx: click.Context, record_id: str, as_json: bool) -> None:
    """One record: its conversation and answer. The beginning of ID will do."""
    from ownweights.traffic import messages_of
    from ownweights.traffic.feedback import feedback_of

    with _open_store(ctx) as store:
        record = _find(store, record_id)
        said = feedback_of(store.database, request_id=record.id, session=record.session)
    if as_json:
        print_json({**dataclasses.asdict(record), "feedback": said})
        return
    print_rows([{k: v for k, v in _summary(record).items() if k != "asks"}])
    for message in (*messages_of(record.request), record.message):
        click.echo(f"\n[{message.get('role', 'nobody')}]")
        click.echo(_told(message))
    for one in said:
        click.echo(f"\n[feedback {one.name} {_time(one.at)}]\n{_shown(one.value)}")


@traffic.command()
@json_option
@click.pass_context
def stats(ctx: click.Context, as_json: bool) -> None:
    """Each workload in numbers.

    `cost_usd` is what the answers cost whose price is known; `unpriced` is how many others there
    are.
    """
    with _open_store(ctx) as store:
        rows = [
            {
                "workload": row.workload,
                "records": row.records,
                "ok": row.ok,
                "partial": row.partial,
                "error": row.error,
                "prompts": row.prompts,
                "sessions": row.sessions,
                "body_bytes": row.body_bytes,
                "cost_usd": row.cost_usd,
                "unpriced": row.unpriced,
                "first": _time(row.first_at),
                "last": _time(row.last_at),
                "models": list(row.models) if as_json else ", ".join(row.models),
            }
            for row in store.workloads()
        ]
    print_rows(rows, as_json=as_json, empty="no record is stored")


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
@_workload_option
@_status_option
@click.option(
    "--format", "export_format", type=click.Choice(["own", "openai"]), default="own",
    show_default=True, help="Our chat format, or OpenAI's for fine-tuning (whole answers only).",
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
        records = store.records(**only)
        if output is not None:
            written = export_file(records, output, export_format)
            facts = {"file": str(output), "records": written}
            print_json(facts) if as_json else say(f"{output}: {written} records")
            return
        for record in records:
            if (line := export_line(record, export_format)) is not None:
                sys.stdout.buffer.write(line)


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


def _find(store: TrafficStore, text: str) -> Record:
    ids = store.find_ids(text)
    if len(ids) > 1:
        raise UsageError(f"{text!r} is the beginning of several ids", hint=", ".join(ids[:4]))
    record = store.get(ids[0]) if ids else None
    if record is None:
        raise UsageError(f"there is no record {text!r}", hint="own traffic list shows the newest")
    return record


def _summary(record: Record) -> dict[str, Any]:
    from ownweights.traffic import user_text

    asks = " ".join(user_text(record.request).split())
    return {
        "id": record.id,
        "at": _time(record.at),
        "workload": record.workload,
        "session": record.session,
        "role": record.role,
        "status": record.status,
        "model": record.model,
        "asks": asks if len(asks) <= _SNIPPET_CHARS else asks[: _SNIPPET_CHARS - 1] + "…",
    }


def _told(message: Any) -> str:
    import json

    from ownweights.traffic import content_text

    calls = message.get("tool_calls")
    text = content_text(message.get("content"))
    return "\n".join(filter(None, [text, json.dumps(calls, ensure_ascii=False) if calls else ""]))


def _shown(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
