"""Draws a results file: `chart.py results.json chart.png`. Run by the peers' Python, which has matplotlib; ours has not."""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402  the backend must be chosen first

COLOURS = {
    "nginx": "#8a9a8b",
    "nginx-log": "#b5c0b6",
    "duckfast": "#f2a900",
    "duckfast-nolog": "#f7cf70",
    "granian": "#7b6fa8",
    "uvicorn": "#4c88b8",
    "gunicorn": "#58975f",
    "fastpysgi": "#b86b5c",
}
COLUMNS = 3
CUT = 6  # times the shortest bar


def draw(data: dict[str, Any], path: Path) -> None:
    """One panel per scenario: a bar per server, CPU per request, the ratio to nginx at its end. Shorter is better."""
    scenarios = [item["name"] for item in data["scenarios"]]
    panels = {name: [item for item in data["results"] if item["scenario"] == name] for name in scenarios}
    panels = {name: items for name, items in panels.items() if items}
    rows = -(-len(panels) // COLUMNS)
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=(15, 2.6 * rows), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    about = {item["name"]: item["about"] for item in data["scenarios"]}
    for axis, (name, items) in zip(axes.flat, panels.items(), strict=False):
        draw_panel(axis, f"{name}: {about[name]}", items)
    machine = data["context"]["machine"]
    figure.suptitle(
        f"CPU microseconds per request, whole process tree (ratio to nginx); shorter is better\n"
        f"{machine['cpu']}, Linux {machine['kernel']}, {machine['python'].split(' (')[0]}, {data['context']['started']}",
        fontsize=11,
    )
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.55 / (2.6 * rows)))
    figure.savefig(path, dpi=110)


def draw_panel(axis: Any, title: str, items: list[dict[str, Any]]) -> None:
    items = sorted(items, key=lambda item: item["cpu"], reverse=True)
    # One server twenty times slower would shrink all other bars to dots: its bar is cut, its figure is not.
    longest = CUT * min(item["cpu"] for item in items if item["cpu"]) if any(item["cpu"] for item in items) else 1.0
    bars = axis.barh(
        [item["server"] for item in items],
        [min(item["cpu"], longest) for item in items],
        color=[COLOURS.get(item["server"], "#999999") for item in items],
    )
    axis.bar_label(bars, [label(item, longest) for item in items], padding=3, fontsize=8)
    axis.set_title(title, fontsize=9)
    axis.margins(x=0.3)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def label(item: dict[str, Any], longest: float) -> str:
    text = f"{item['cpu']:.1f}" + (f" ({item['ratio']:.2f})" if item["ratio"] else "")
    cut = "\u2192 " if item["cpu"] > longest else ""
    return cut + text + (" INVALID" if item["invalid"] else "")


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
