"""Instructions per request of a plain BaseServer beside those of the duckfast command, under callgrind. See README.md.

Hooks that are not overridden cost nothing: this says how near to nothing, and fails when it is more than MOST.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from check import Counter, command_line, with_interpreter
from harness import tools
from harness.scenarios import SCENARIOS

MOST = 0.03
COMPARED = ["wsgi-hello", "wsgi-browser", "wsgi-post", "asgi-hello", "asgi-browser"]

SERVE = """
import apps
from duckfast.httpd import SETTINGS, BaseServer
SETTINGS.ASYNC_LOOP, SETTINGS.KEEP_ALIVE_TIMEOUT, SETTINGS.SEND_TIMEOUT = "asyncio", 60, 60
BaseServer(("127.0.0.1", {port}), apps.{interface}, no_logs=True).start_server()
"""


def class_api(duckfast: list[str], interface: str) -> Callable[[int], list[str]]:
    """The same apps by a BaseServer that overrides nothing."""
    interpreter = with_interpreter(duckfast)[:-1]
    return lambda port: [*interpreter, "-c", SERVE.format(port=port, interface=interface)]


def count(command: Callable[[int], list[str]], interface: str) -> dict[str, float]:
    counted = {}
    with tempfile.TemporaryDirectory(prefix="duckfast-check-") as folder:
        valgrind, vgdb = (tools.need_command(name, "valgrind") for name in ("valgrind", "vgdb"))
        counter = Counter(valgrind, vgdb, command, Path(folder))
        with counter.process:
            counter.wait_until_up()
            for scenario in SCENARIOS:
                if scenario.name in COMPARED and scenario.interface == interface:
                    counted[scenario.name] = counter.count(scenario)
    return counted


def main() -> int:
    duckfast = tools.need_duckfast(None)
    worst = 0.0
    print(f"{'scenario':<14}{'command':>10}{'BaseServer':>12}{'change':>9}")
    for interface in ("wsgi", "asgi"):
        by_command = count(command_line(duckfast, interface), interface)
        by_class = count(class_api(duckfast, interface), interface)
        for name, instructions in by_command.items():
            change = by_class[name] / instructions - 1
            worst = max(worst, change)
            print(f"{name:<14}{instructions:>10.0f}{by_class[name]:>12.0f}{change:>+9.2%}")
    return 1 if worst > MOST else 0


if __name__ == "__main__":
    sys.exit(main())
