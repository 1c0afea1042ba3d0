"""A look as text: what was found in each channel, how strong it is, what an alarm voids."""

from __future__ import annotations

from ownweights.verdict.drift.monitor import DriftMonitor
from ownweights.verdict.drift.outcome import CHANGED, COULD_NOT_TELL, SAME, Finding, Look

WORDS = {SAME: "same", CHANGED: "CHANGED", COULD_NOT_TELL: "could not tell"}


def drift_text(monitor: DriftMonitor) -> str:
    """What a monitor knows now, for reading."""
    baseline, state = monitor.baseline, monitor.state
    lines = [
        f"teacher {baseline.teacher}: {_headline(monitor)}",
        f"  chance of a false alarm, ever: {baseline.budget.false_alarm:g}, of which"
        f" {monitor.spent:.4f} is spent after {len(state.looks)} looks",
        "    it counts on answers that, while nothing changes, are independent draws, whatever the"
        " day",
    ]
    if state.looks:
        lines += look_lines(state.looks[-1])
    lines += [f"  not measured  {name}: {why}" for name, why in baseline.unmeasured.items()]
    if state.incident:
        lines.append(f"  incident {state.incident.name} is open since look {state.incident.look}:")
        lines.append(f"    {state.incident.reason}")
    return "\n".join(lines)


def look_lines(look: Look) -> list[str]:
    """One line for each channel of a look, then what was only noted."""
    told = [f"  look {look.number}: {WORDS[look.outcome]}; asked {look.num_asked},"
            f" unreadable {look.num_failed}"]  # fmt: skip
    told += [f"  {finding.channel:<9} {_finding(finding)}" for finding in look.findings]
    return told + [f"  note      {note}" for note in look.notes]


def _headline(monitor: DriftMonitor) -> str:
    if not monitor.state.looks:
        models = ", ".join(monitor.baseline.metadata.models) or "a model that gives no name"
        return f"baseline of {len(monitor.baseline.canaries)} canaries, answered by {models}"
    return WORDS[monitor.state.outcome]


def _finding(finding: Finding) -> str:
    told = f"{WORDS[finding.outcome]:<15} {finding.what}"
    if finding.p_value is not None and finding.limit:
        told += f" (p {finding.p_value:.2g}, alarm at {finding.limit:.2g}"
        told += f", after {finding.alarm_at} of {finding.num_probes})" if finding.alarm_at else ")"
    if finding.outcome == SAME and finding.detectable is not None:
        told += f"; a shift of {finding.detectable:.0%} of answers would show"
    return told
