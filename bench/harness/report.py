"""From rows to medians, and from medians to Markdown. Pure: no process, no file.

A ratio is taken within a round, against the nginx of the same round, and only then is the median of the rounds taken:
what slows the machine for a minute slows both sides of the fraction.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .measure import Row
from .scenarios import Scenario

REFERENCE = "nginx"
NOISY = 0.05  # share of the server's core taken by others; above it CPU caches, not only clocks, are disturbed
LOG_LIMIT = 1.10  # an access log may add a tenth


@dataclass
class Result:
    """One server under one scenario: medians over its valid rounds."""

    scenario: str
    server: str
    rounds: int
    invalid: list[str]
    cpu: float
    cpu_user: float
    ratio: float | None  # of CPU per request, to nginx
    throughput: float
    p99: float
    rss: float
    pss: float
    threads: int
    other_load: float
    visitor_p50: float | None
    visitor_p99: float | None


@dataclass(frozen=True)
class Verdict:
    what: str
    limit: str
    found: str
    passed: bool


def results(rows: Sequence[Row]) -> list[Result]:
    keys = list(dict.fromkeys((row.scenario, row.server) for row in rows))
    reference = {(row.scenario, row.round): row.cpu for row in rows if row.server == REFERENCE and row.invalid is None}
    return [_result([row for row in rows if (row.scenario, row.server) == key], reference) for key in keys]


def _result(rows: list[Row], reference: dict[tuple[str, int], float]) -> Result:
    valid = [row for row in rows if row.invalid is None]
    # Figures of an invalid row are shown, struck through and explained, rather than hidden.
    used = valid or rows
    ratios = [row.cpu / reference[row.scenario, row.round] for row in used if (row.scenario, row.round) in reference]

    def median(value: Callable[[Row], float]) -> float:
        return statistics.median(value(row) for row in used)

    visited = [row for row in used if row.visitor_p50 is not None and row.visitor_p99 is not None]
    return Result(
        scenario=rows[0].scenario,
        server=rows[0].server,
        rounds=len(valid),
        invalid=[f"round {row.round}: {row.invalid}" for row in rows if row.invalid is not None],
        cpu=median(lambda row: row.cpu),
        cpu_user=median(lambda row: row.cpu_user),
        ratio=statistics.median(ratios) if ratios else None,
        throughput=median(lambda row: row.throughput),
        p99=median(lambda row: row.p99),
        rss=median(lambda row: row.rss),
        pss=median(lambda row: row.pss),
        threads=max(row.threads for row in used),
        other_load=median(lambda row: row.other_load),
        visitor_p50=statistics.median(row.visitor_p50 or 0.0 for row in visited) if visited else None,
        visitor_p99=statistics.median(row.visitor_p99 or 0.0 for row in visited) if visited else None,
    )


def verdicts(found: Sequence[Result], scenarios: Iterable[Scenario], rows: Sequence[Row]) -> list[Verdict]:
    """duckfast against the limits it has set itself, and against every Python peer. An invalid row passes nothing."""
    by_key = {(result.scenario, result.server): result for result in found}
    judged: list[Verdict] = []
    for scenario in scenarios:
        ours = by_key.get((scenario.name, "duckfast"))
        if ours is None:
            continue
        sound = not ours.invalid
        if scenario.limit is not None and ours.ratio is not None:
            passed = sound and ours.ratio <= scenario.limit
            judged.append(Verdict(f"{scenario.name}: ratio to nginx", f"<= {scenario.limit:.2f}", f"{ours.ratio:.2f}", passed))
        if scenario.throughput is not None:
            passed = sound and ours.throughput >= scenario.throughput
            judged.append(
                Verdict(f"{scenario.name}: requests/s", f">= {scenario.throughput:.0f}", f"{ours.throughput:.0f}", passed)
            )
        if ours.visitor_p50 is not None:
            milliseconds = ours.visitor_p50 / 1000
            passed = sound and milliseconds < 10
            judged.append(Verdict(f"{scenario.name}: fast view beside it, p50", "< 10 ms", f"{milliseconds:.1f} ms", passed))
        if scenario.visitor:
            continue
        peers = [peer for peer in found if peer.scenario == scenario.name and _is_peer(peer.server) and not peer.invalid]
        ranked = [(peer.ratio, peer.server) for peer in peers if peer.ratio is not None]
        if ranked and ours.ratio is not None:
            # Of ratios, not of microseconds: only a ratio compares with what the machine did in the same round.
            best, server = min(ranked)
            found_here = f"{ours.ratio:.2f}"
            judged.append(
                Verdict(f"{scenario.name}: below every peer", f"{server} {best:.2f}", found_here, sound and ours.ratio < best)
            )
        if scenario.access_log and (added := _added_by_log(rows, scenario.name)) is not None:
            passed = sound and added <= LOG_LIMIT
            judged.append(Verdict(f"{scenario.name}: added by the log", f"<= {LOG_LIMIT - 1:.0%}", f"{added - 1:+.0%}", passed))
    return judged


def _is_peer(server: str) -> bool:
    return not server.startswith(("nginx", "duckfast"))


def _added_by_log(rows: Sequence[Row], scenario: str) -> float | None:
    without = {row.round: row.cpu for row in rows if row.scenario == scenario and row.server == "duckfast-nolog"}
    shares = [
        row.cpu / without[row.round]
        for row in rows
        if row.scenario == scenario and row.server == "duckfast" and row.round in without
    ]
    return statistics.median(shares) if shares else None


def markdown(context: dict[str, Any], scenarios: Sequence[Scenario], found: Sequence[Result], judged: Sequence[Verdict]) -> str:
    lines = [f"# Benchmark of {context['started']}", "", *_context_lines(context), ""]
    invalid = [(result, reason) for result in found for reason in result.invalid]
    if invalid:
        lines += ["## INVALID ROWS: not to be quoted", ""]
        lines += [f"- **{result.scenario} / {result.server}**, {reason.splitlines()[0]}" for result, reason in invalid] + [""]
    noisy = sorted({result.scenario for result in found if result.other_load > NOISY})
    if noisy:
        lines += [f"**Noisy**: others used over {NOISY:.0%} of the server's core during {', '.join(noisy)}.", ""]
    if judged:
        lines += ["## Limits", "", "| what | limit | found | |", "|---|---|---|---|"]
        lines += [f"| {v.what} | {v.limit} | {v.found} | {'pass' if v.passed else '**FAIL**'} |" for v in judged] + [""]
    lines += ["## CPU microseconds per request (ratio to nginx)", "", *_overview(scenarios, found), ""]
    lines += ["## Every figure", ""]
    for scenario in scenarios:
        here = [result for result in found if result.scenario == scenario.name]
        if here:
            lines += _scenario_table(scenario, here)
    return "\n".join(lines)


def _context_lines(context: dict[str, Any]) -> list[str]:
    machine = context["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in context["versions"].items())
    return [
        f"{context['rounds']} rounds of {context['seconds']} s after {context['warm_up']} s of warm-up, "
        f"{context['connections']} keep-alive connections, server on core {context['server_core']}, "
        f"wrk on core {context['client_core']}.",
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']} {machine['machine']}, {machine['python']}.",
        f"{versions}. Commit {context['commit']}.",
    ]


def _overview(scenarios: Sequence[Scenario], found: Sequence[Result]) -> list[str]:
    servers = list(dict.fromkeys(result.server for result in found))
    by_key = {(result.scenario, result.server): result for result in found}
    lines = ["| scenario | " + " | ".join(servers) + " |", "|---" * (len(servers) + 1) + "|"]
    for scenario in scenarios:
        cells = [_overview_cell(by_key.get((scenario.name, server))) for server in servers]
        if any(cell for cell in cells):
            lines.append(f"| {scenario.name} | " + " | ".join(cells) + " |")
    return lines


def _overview_cell(result: Result | None) -> str:
    if result is None:
        return ""
    said = f"{result.cpu:.1f}" + (f" ({result.ratio:.2f})" if result.ratio is not None else "")
    return f"~~{said}~~ INVALID" if result.invalid else said


def _scenario_table(scenario: Scenario, here: Sequence[Result]) -> list[str]:
    visited = any(result.visitor_p50 is not None for result in here)
    head = "| server | CPU us/request | user us | ratio | requests/s | p99 ms | RSS MiB | PSS MiB | threads |"
    lines = [f"### {scenario.name}: {scenario.about}", "", head + (" fast view p50 / p99 ms |" if visited else "")]
    lines.append("|---|" + "---:|" * (8 + visited))
    for result in here:
        ratio = f"{result.ratio:.2f}" if result.ratio is not None else ""
        cells = [result.server, f"{result.cpu:.2f}", f"{result.cpu_user:.2f}", ratio, f"{result.throughput:,.0f}"]
        cells += [f"{result.p99 / 1000:.2f}", f"{result.rss / 2**20:.1f}", f"{result.pss / 2**20:.1f}", str(result.threads)]
        if visited:
            p50, p99 = result.visitor_p50 or 0.0, result.visitor_p99 or 0.0
            cells.append(f"{p50 / 1000:.2f} / {p99 / 1000:.2f}")
        if result.invalid:
            cells[0] += " **INVALID**"
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]
