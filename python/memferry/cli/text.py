"""Reports as text."""

from __future__ import annotations

from typing import Any

from memferry.model import KINDS
from memferry.phases.estimate import NOT_LOOKED_AT, QuickPlan, estimate
from memferry.phases.migrate import Result
from memferry.phases.parity import Parity
from memferry.phases.plan import Plan
from memferry.phases.quarantine import Retried
from memferry.phases.status import Standing
from memferry.urls import StoreUrl

__all__ = ["plan_text", "quick_text", "report_text", "result_text", "retried_text", "standing_text"]

_COLUMNS = {"read": 12, "written": 12, "unchanged": 12, "conflicts": 10, "quarantined": 12, "deleted": 8}
"""Shown columns and their widths; the table fits 80 columns."""
_WORDS = {
    "proven": "every record is there, field by field, and the source did not change",
    "matched_live": "every record matched, but the source changed between plan and proof",
    "partial": "every record that was chosen is there, field by field",
    "not_proven": "the target is not what the source is",
}
_SHOWN = 20


def plan_text(plan: Plan) -> str:
    """The plan for people."""
    lines = [
        f"migration  {plan.migration}",
        f"source     {plan.source['identity']}, profile {plan.source['profile']}",
        f"target     {plan.target['backend']}, profile {plan.target['profile']}, {plan.target_records} records now",
        f"ranges     {len(plan.ranges)}",
        "",
        *(f"  {kind:<12} {plan.counts[kind]:>10,}" for kind in (*KINDS, "unknown") if plan.counts.get(kind)),
    ]
    lines += _chosen(plan)
    if plan.repeated:
        lines.append(f"  {len(plan.repeated)} ids stand more than once; those records will be quarantined")
    lines += [f"  gap {gap.name}: {gap.records} records, for example {gap.example}" for gap in plan.gaps]
    rough = estimate(plan.records, plan.scan_secs, plan.target["backend"])
    lines += ["", f"roughly    {_bytes(plan.size_bytes)}, {_time(rough.secs)} to copy and prove; nothing was written"]
    if rough.scanned_per_sec is not None:
        lines += [
            f"           this scan read {rough.scanned_per_sec:,.0f} records/s, and two more will; assumed of",
            f"           {plan.target['backend']}: {rough.write_per_sec:,}/s written, {rough.read_per_sec:,}/s read",
        ]
    return "\n".join(lines)


def quick_text(plan: QuickPlan) -> str:
    """Estimates for people."""
    rows = "not counted without reading" if plan.rows is None else f"{plan.rows:,}"
    target = (
        "nothing there yet" if plan.target is None else f"{plan.target['identity']}, profile {plan.target['profile']}"
    )
    lines = [
        f"source     {plan.source['identity']}, profile {plan.source['profile']}",
        f"target     {target}",
        f"rows       {rows}" + (f", {_bytes(plan.size_bytes)}" if plan.size_bytes else ""),
    ]
    if plan.estimate_secs is not None:
        lines.append(f"roughly    {_time(plan.estimate_secs)} to copy and prove, at rates assumed of files")
    else:
        lines.append("time       unknown: nothing was read, so no rate was measured")
    lines += ["", "from counts only; not looked at:", *(f"  {what}" for what in NOT_LOOKED_AT)]
    lines += ["nothing was written; without --quick everything is read"]
    return "\n".join(lines)


def retried_text(done: Retried, target: StoreUrl) -> str:
    """What came of a retry, for people."""
    lines = [f"moved {done.moved:,}, left {len(done.left):,}"]
    lines += [f"  {number}  {row.kind or '?'} {row.id or row.key}: {why}" for number, row, why in done.left[:_SHOWN]]
    if len(done.left) > _SHOWN:
        lines.append(f"  ... {len(done.left) - _SHOWN:,} more, `--json` has them all")
    if done.proof:
        lines += ["", result_text(done.proof, target)]
    elif done.moved:
        lines.append("not compared yet: `memferry verify SRC DST` does")
    return "\n".join(lines)


def standing_text(row: Standing) -> str:
    """How far a migration is, for people."""
    percent = f"  {row.percent:g} %" if row.percent is not None and row.state == "copying" else ""
    # What the run had come to before it was taken back would only confuse.
    outcome = "" if row.state == "rolled_back" else row.outcome or ""
    lines = [f"{row.migration}  {row.state}  {outcome}{percent}".rstrip()]
    of = f" of {row.rows:,}" if row.rows is not None else ""
    rate = f", {row.rate:,.0f}/s" if row.rate else ""
    left = f", {_time(row.eta_secs)} left" if row.eta_secs is not None else ""
    lines.append(f"  {row.books.total('read'):,}{of} records read, {row.ranges_done} ranges done{rate}{left}")
    odd = {name: row.books.total(name) for name in ("quarantined", "conflicts")}
    if any(odd.values()):
        lines.append("  " + ", ".join(f"{name} {count:,}" for name, count in odd.items() if count))
    if row.lock and row.lock.alive:
        since = f" for {_time(row.running_secs)}" if row.running_secs is not None else ""
        sign = f"last sign {row.lock.silent_secs:.0f} s ago"
        lines.append(f"  process {row.lock.pid} on {row.lock.host} is at work{since}, {sign}")
    elif row.unfinished:
        lines.append("  nobody is at work" + (f"; to resume: {row.command}" if row.command else ""))
    return "\n".join(lines)


def _bytes(size: int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}"
        size //= 1000
    return f"{size:,} TB"


def _time(secs: float) -> str:
    if secs < 90:
        return f"{max(1, round(secs))} s"
    return f"{secs / 60:,.0f} min" if secs < 90 * 60 else f"{secs / 3600:,.1f} h"


def _chosen(plan: Plan) -> list[str]:
    """Which records go on."""
    made, found = plan.transform, plan.duplicates
    lines = []
    if made.where is not None:
        lines.append(f"  where: {plan.passing:,} of {sum(plan.counts.values()):,} records")
    if made.sample or made.limit:
        lines.append(f"  of these at most {made.sample or made.limit:,} are moved")
    if made.embedding is not None:
        new = made.embedding
        lines.append(
            f"  re-embed: {plan.embedded:,} records, {_bytes(plan.embedded_bytes)} of text, by {new.model} "
            f"({new.dimensions} dimensions) at {new.url}; texts that were embedded before are not asked again"
        )
    if found.groups:
        lines.append(
            f"  same text: {found.records:,} records in {found.groups:,} groups, {len(made.merged):,} merged away"
        )
        lines += [f"    {kind} {', '.join(ids)}" for kind, *ids in found.examples]
    return lines


def result_text(result: Result, target: StoreUrl) -> str:
    """The report for people."""
    columns = _COLUMNS
    if result.books.total("filtered") or result.books.total("deduplicated"):
        # The table still fits: what nothing is booked in makes room.
        kept = {name: width for name, width in _COLUMNS.items() if name == "written" or result.books.total(name)}
        columns = {**kept, "filtered": 10, "deduplicated": 14}
    lines = [f"  {'kind':<12}" + "".join(f"{name:>{width}}" for name, width in columns.items())]
    for kind, counts in result.books.to_json().items():
        lines.append(f"  {kind:<12}" + "".join(f"{counts[name]:>{width},}" for name, width in columns.items()))
    if result.verification:
        counts = result.verification.counts()
        lines += ["", "  " + ", ".join(f"{name} {value:,}" for name, value in counts.items())]
        lines += _findings(result)
        if not result.verification.source_unchanged:
            lines.append("  the source changed between plan and proof")
    if result.parity:
        lines += ["", *_parity(result.parity)]
    for conflict in result.conflicts[:_SHOWN]:
        lines.append(f"  conflict  {conflict['kind']} {conflict['id']}: {conflict['reason']}, left as it is")
    for gap in result.plan.gaps:
        lines.append(f"  dropped   {gap.name}: {gap.records} records")
    rate = result.books.total("read") / result.elapsed_secs if result.elapsed_secs else 0
    lines += [
        "",
        f"{result.outcome}: {_meaning(result)}",
        f"migration {result.migration}, {result.elapsed_secs:.1f} s, {rate:,.0f} records/s"
        + (", resumed" if result.resumed else ""),
    ]
    if result.books.total("quarantined"):
        lines.append(f"see `memferry quarantine list {target.text}`")
    if result.exit_code == 0:
        lines += [f"next: open `{target.text}` in the application", "`memferry rollback` takes it back until then"]
    return "\n".join(lines)


def _meaning(result: Result) -> str:
    """What the outcome says; of one that is not proven, why."""
    found = result.verification
    if result.outcome != "not_proven" or found is None or not found.equal:
        return _WORDS.get(result.outcome, "")
    behind = [
        f"{count:,} {what}"
        for column, what in (("quarantined", "not moved"), ("conflicts", "left as the target has them"))
        if (count := result.books.total(column))
    ]
    if behind:
        return f"{', '.join(behind)}; all others are there, field by field"
    if not found.source_unchanged:
        return "every record matched, but the source changed, and it was said to be frozen"
    return "every record is there, and the target finds fewer of the nearest neighbours than was asked for"


def summary_text(finals: list[dict[str, Any]]) -> str:
    """One line a migration, at the end of several."""
    width = max(len(final["name"]) for final in finals)
    lines = [""]
    for final in finals:
        kinds = final.get("kinds", {}).values()
        counts = ", ".join(
            f"{name} {total:,}"
            for name in ("read", "written", "unchanged", "conflicts", "quarantined", "deleted")
            if (total := sum(counts[name] for counts in kinds)) or name == "read"
        )
        said = final["error"]["message"] if "error" in final else counts if kinds else ""
        lines.append(f"  {final['name']:<{width}}  {final['outcome']:<12} {said}".rstrip())
    return "\n".join(lines)


def report_text(result: dict[str, Any]) -> str:
    """The stored final object for people."""
    lines = [f"migration {result['migration']}: {result['outcome']}, {result['elapsed_secs']} s"]
    for kind, counts in result["kinds"].items():
        booked = ", ".join(f"{name} {value:,}" for name, value in counts.items() if value)
        lines.append(f"  {kind:<12} {booked or 'none'}")
    lines.append("  " + ", ".join(f"{name} {value:,}" for name, value in (result["verify"] or {}).items()))
    if (parity := result.get("parity")) and parity["samples"]:
        lines.append(
            f"  parity overlap {parity['overlap']:.3f}, recall@{parity['neighbours']} {parity['target_recall']:.3f}"
        )
    lines += [f"  {f['what']} {f['kind']} {f['id']}" for f in result["findings"][:_SHOWN]]
    return "\n".join(lines)


def _findings(result: Result) -> list[str]:
    findings = result.verification.findings if result.verification else []
    lines = []
    for finding in findings[:_SHOWN]:
        lines.append(f"  {finding.what:<9} {finding.kind} {finding.id}")
        for name, expected, found in finding.fields[:5]:
            lines.append(f"            {name}: expected {_short(expected)}, found {_short(found)}")
    if len(findings) > _SHOWN:
        lines.append(f"  ... {len(findings) - _SHOWN} more, `--json` has them all")
    return lines


def _parity(parity: Parity) -> list[str]:
    if parity.overlap is None:
        return ["  parity    no record has a dense vector, nothing was searched"]
    k = parity.neighbours
    lines = [
        f"  parity    {parity.samples} searches, overlap {parity.overlap:.3f}",
        f"            recall@{k}: source {parity.source_recall:.3f}, target {parity.target_recall:.3f}",
    ]
    for end, millis in (("source", parity.source_millis), ("target", parity.target_millis)):
        lines.append(f"            {end} p50 {millis['p50']:.1f} ms, p95 {millis['p95']:.1f} ms")
    return lines if parity.indexed else [*lines, "            an index was still being built"]


def _short(value: str | None) -> str:
    if value is None:
        return "nothing"
    return repr(value) if len(value) <= 60 else repr(value[:57]) + "..."
