"""Compares duckfast with nginx and the Python servers: CPU per request, throughput, latency, memory. See README.md.

Measures and reports; judges nothing but whether a figure may be believed. Linux, two cores, nginx and wrk.
"""

import argparse
import datetime
import fnmatch
import json
import os
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import measure, report, tools
from harness.measure import Failed, Row
from harness.scenarios import SCENARIOS, Scenario
from harness.servers import Server, catalogue

Plan = list[tuple[Scenario, list[Server]]]


def parse_arguments() -> argparse.Namespace:
    """Options also come from the environment, so that `make bench ROUNDS=1 ONLY='wsgi-*'` works."""
    environ = os.environ
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rounds", type=int, default=int(environ.get("ROUNDS", "3")), help="medians of this many (ROUNDS)")
    parser.add_argument("--seconds", type=int, default=int(environ.get("SECONDS", "4")), help="per measurement (SECONDS)")
    parser.add_argument(
        "--only", action="append", default=None, metavar="SCENARIO[/SERVER]", help="globs, may repeat, commas allowed (ONLY)"
    )
    parser.add_argument("--skip", action="append", default=None, metavar="SCENARIO[/SERVER]", help="the opposite (SKIP)")
    parser.add_argument("--list", action="store_true", help="show the scenarios and their servers, and stop")
    parser.add_argument("--duckfast", default=environ.get("DUCKFAST"), metavar="COMMAND", help="the server under test (DUCKFAST)")
    parser.add_argument("--output", type=Path, default=tools.RESULTS, metavar="FOLDER", help="where results go")
    words = [*shlex.split(environ.get("BENCH_ARGS", "")), *sys.argv[1:]]
    arguments = parser.parse_args(words)
    arguments.only = patterns(arguments.only or [environ.get("ONLY", "")]) or ["*"]
    arguments.skip = patterns(arguments.skip or [environ.get("SKIP", "")])
    if arguments.rounds < 1 or arguments.seconds < 1:
        parser.error("--rounds and --seconds are at least 1")
    return arguments


def patterns(given: list[str]) -> list[str]:
    return [pattern for text in given for pattern in text.replace(",", " ").split()]


def matches(scenario: str, server: str, globs: list[str]) -> bool:
    return any(fnmatch.fnmatch(f"{scenario}/{server}", glob if "/" in glob else f"{glob}/*") for glob in globs)


def make_plan(servers: list[Server], only: list[str], skip: list[str]) -> Plan:
    plan: Plan = []
    for scenario in SCENARIOS:
        chosen = [
            server
            for server in servers
            if server.serves(scenario)
            and matches(scenario.name, server.key, only)
            and not matches(scenario.name, server.key, skip)
        ]
        if chosen:
            plan.append((scenario, chosen))
    return plan


def run_rounds(wrk: str, plan: Plan, rounds: int, seconds: int) -> list[Row]:
    """Servers take turns within a scenario and scenarios within a round, so a slow minute hits all alike."""
    rows: list[Row] = []
    turns = [(number, scenario, server) for number in range(1, rounds + 1) for scenario, servers in plan for server in servers]
    try:
        for number, scenario, server in turns:
            row = measure_or_explain(wrk, server, scenario, number, seconds)
            rows.append(row)
            print(progress_line(row, len(rows), len(turns)), flush=True)
    except KeyboardInterrupt:
        print("interrupted: reporting what there is", file=sys.stderr)
    return rows


def measure_or_explain(wrk: str, server: Server, scenario: Scenario, number: int, seconds: int) -> Row:
    try:
        return measure.measure(wrk, server, scenario, number, seconds)
    except Failed as error:
        return Row(scenario.name, server.key, number, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, invalid=str(error))


def progress_line(row: Row, done: int, total: int) -> str:
    line = f"[{done}/{total}] {row.scenario:14} {row.server:15} {row.cpu:7.2f} us ({row.cpu_user:.2f} user)"
    line += f" {row.throughput:10,.0f}/s  p99 {row.p99 / 1000:8.2f} ms  {row.rss / 2**20:6.1f} MiB"
    if row.visitor_p50 is not None and row.visitor_p99 is not None:
        line += f"  fast view {row.visitor_p50 / 1000:.2f}/{row.visitor_p99 / 1000:.2f} ms"
    return line + (f"\n!!! INVALID {row.scenario} / {row.server}: {row.invalid}" if row.invalid else "")


def gather_context(arguments: argparse.Namespace, nginx: str, wrk: str, duckfast: list[str] | None) -> dict[str, object]:
    versions = {"nginx": tools.first_line([nginx, "-v"]).rpartition("/")[2]}
    versions["wrk"] = tools.first_line([wrk, "-v"]).split(" [")[0].removeprefix("wrk ")
    if duckfast is not None:
        versions["duckfast"] = tools.first_line([*duckfast, "--version"]).removeprefix("duckfast ")
    versions |= tools.peer_versions()
    return {
        "started": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": tools.commit(),
        "machine": tools.machine(),
        "versions": versions,
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "warm_up": measure.WARM_UP,
        "connections": measure.CONNECTIONS,
        "server_core": measure.SERVER_CORE,
        "client_core": measure.CLIENT_CORE,
        "load_average": os.getloadavg(),
    }


def write_results(folder: Path, context: dict[str, object], plan: Plan, rows: list[Row]) -> str:
    """Writes the JSON, the table and the chart; returns the table."""
    scenarios = [scenario for scenario, _ in plan]
    found = report.results(rows)
    judged = report.verdicts(found, scenarios, rows)
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    data = {
        "context": context,
        "scenarios": [{"name": scenario.name, "about": scenario.about} for scenario in scenarios],
        "results": [asdict(result) for result in found],
        "verdicts": [asdict(verdict) for verdict in judged],
        "rows": [row.as_json() for row in rows],
    }
    stem.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")
    table = report.markdown(context, scenarios, found, judged)
    stem.with_suffix(".md").write_text(table)
    chart = [str(tools.PEERS / "bin" / "python"), str(tools.BENCH / "harness" / "chart.py")]
    subprocess.run([*chart, str(stem.with_suffix(".json")), str(stem.with_suffix(".png"))], check=True)
    print(f"\nwritten: {stem}.json .md .png\n", flush=True)
    return table


def prepare(arguments: argparse.Namespace) -> tuple[str, str, list[str] | None, Plan]:
    nginx = tools.need_command("nginx", "nginx")
    wrk = tools.need_command("wrk", "wrk")
    tools.need_command("taskset", "util-linux")
    # Ask for ours only where the plan has it: the peers can be measured without a build.
    plan = make_plan(catalogue(["duckfast"], nginx), arguments.only, arguments.skip)
    duckfast = None
    if any(server.key.startswith("duckfast") for _, servers in plan for server in servers):
        duckfast = tools.need_duckfast(arguments.duckfast)
    plan = make_plan(catalogue(duckfast, nginx), arguments.only, arguments.skip)
    if not plan:
        raise tools.Missing(f"nothing matches --only {' '.join(arguments.only)}; see --list")
    return nginx, wrk, duckfast, plan


def main() -> int:
    arguments = parse_arguments()
    if arguments.list:
        for scenario, servers in make_plan(catalogue(["duckfast"], "nginx"), arguments.only, arguments.skip):
            print(f"{scenario.name:14} {scenario.about:52} {' '.join(server.key for server in servers)}")
        return 0
    try:
        nginx, wrk, duckfast, plan = prepare(arguments)
        tools.need_peers()
    except tools.Missing as error:
        print(error, file=sys.stderr)
        return 2
    if (os.cpu_count() or 1) < 2:
        print("this machine has one core: server and load generator need one each", file=sys.stderr)
        return 2
    # We and everything we start but the servers stay off the server's core.
    os.sched_setaffinity(0, {measure.CLIENT_CORE})
    context = gather_context(arguments, nginx, wrk, duckfast)
    rows = run_rounds(wrk, plan, arguments.rounds, arguments.seconds)
    if not rows:
        return 1
    print(write_results(arguments.output, context, plan, rows))
    return 1 if any(row.invalid for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
