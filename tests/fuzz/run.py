"""Feeds the harnesses with changed requests of the corpus until the time is up. `make fuzz SECONDS=600`.

    python tests/fuzz/run.py --seconds 60 [--seed 7] [--only requests] [--input build/fuzz/last]

Prints, once a minute and at the end, the executions of each harness and the processor time it had; each gets the same time.
Ends with exit code 1 and the input when a promise is broken. The input under test is always in build/fuzz/last (--last names
another file, for runs side by side), so that it is there after a sanitizer has ended the process.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fuzz.harnesses import HARNESSES, seeds  # noqa: E402
from support.mutation import mutate  # noqa: E402

# Inputs that became seeds for others; how many of them at most.
POOL = 2_000
REPORT_EVERY = 60  # seconds


class Run:
    """What has been executed so far. `last` is the file that holds the input under test."""

    def __init__(self, names: list[str], seed: int, last: Path) -> None:
        self.executions = dict.fromkeys(names, 0)
        self.used = dict.fromkeys(names, 0.0)  # seconds of processor time
        self._chosen = random.Random(seed)
        self._seeds = seeds()
        self._pools = {name: list(self._seeds) for name in names}
        last.parent.mkdir(parents=True, exist_ok=True)
        self._last = open(last, "wb", buffering=0)  # noqa: SIM115 (as long as the process)
        self._stopped = False

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal: ends with a report, after the present input. An exception in its middle would be a finding."""
        self._stopped = True

    def until(self, end: float) -> None:
        """Execute until time.monotonic() is at `end`, or until stop()."""
        report = time.monotonic() + REPORT_EVERY
        while not self._stopped and (now := time.monotonic()) < end:
            self.execute_next()
            if now >= report:
                report = now + REPORT_EVERY
                print(self.summary(), flush=True)

    def execute_next(self) -> None:
        name = min(self.used, key=self.used.__getitem__)
        start = time.process_time()
        pool = self._pools[name]
        data = mutate(self._chosen.choice(pool), self._seeds, self._chosen)
        self._last.seek(0)
        self._last.truncate()
        self._last.write(data)
        execute(name, data)
        self.executions[name] += 1
        # Mutations of mutations go further than one step from the corpus ever does.
        if len(data) < 2_000 and self._chosen.random() < 0.05:
            if len(pool) < len(self._seeds) + POOL:
                pool.append(data)
            else:
                pool[len(self._seeds) + self._chosen.randrange(POOL)] = data
        self.used[name] += time.process_time() - start

    def summary(self) -> str:
        lines = [f"{'harness':16} {'executions':>12} {'processor s':>12}"]
        lines += [f"{name:16} {self.executions[name]:12} {self.used[name]:12.1f}" for name in self.executions]
        lines.append(f"{'all':16} {sum(self.executions.values()):12} {sum(self.used.values()):12.1f}  seeds: {len(self._seeds)}")
        return "\n".join(lines)


def execute(name: str, data: bytes) -> None:
    try:
        HARNESSES[name](data)
    except Exception:
        print(f"the harness {name!r} found something: {data!r}", file=sys.stderr)
        raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--only", choices=HARNESSES, action="append", help="a harness to run; all of them by default")
    parser.add_argument("--input", type=Path, help="execute this one input and stop")
    parser.add_argument("--last", type=Path, default=Path("build/fuzz/last"), help="where the input under test is kept")
    options = parser.parse_args()
    names = options.only or list(HARNESSES)
    if options.input:
        data = options.input.read_bytes()
        for name in names:
            execute(name, data)
        return
    print(f"fuzzing {', '.join(names)} for {options.seconds:g} s, seed {options.seed}", flush=True)
    run = Run(names, options.seed, options.last)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, run.stop)
    try:
        run.until(time.monotonic() + options.seconds)
    finally:
        print(run.summary(), flush=True)
    print(f"{sum(run.executions.values())} executions, no findings")


if __name__ == "__main__":
    main()
