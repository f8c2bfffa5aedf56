"""Feeds the harnesses with changed requests of the corpus until the time is up. `make fuzz SECONDS=600`.

    python tests/fuzz/run.py --seconds 60 [--seed 7] [--only requests] [--input build/fuzz/last]

Prints the number of executions; ends with exit code 1 and the input when a promise is broken. The input under test is always
in build/fuzz/last, so that it is there after a sanitizer has ended the process.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fuzz.harnesses import HARNESSES, MORE_SEEDS  # noqa: E402
from support.corpus import load_cases  # noqa: E402
from support.mutation import mutate  # noqa: E402

LAST = Path("build/fuzz/last")
# An input that took a new way through the core is kept as a seed for others; how many of them at most.
POOL = 2_000


def run(seconds: float, seed: int, names: list[str]) -> int:
    """Executes until `seconds` have passed; returns the number of executions."""
    chosen = random.Random(seed)
    seeds = [*(case.raw for case in load_cases()), *MORE_SEEDS]
    pool = list(seeds)
    LAST.parent.mkdir(parents=True, exist_ok=True)
    executions = 0
    end = time.monotonic() + seconds
    with open(LAST, "wb", buffering=0) as last:
        while time.monotonic() < end:
            data = mutate(chosen.choice(pool), seeds, chosen)
            last.seek(0)
            last.truncate()
            os.write(last.fileno(), data)
            for name in names:
                execute(name, data)
                executions += 1
            # Mutations of mutations go further than one step from the corpus ever does.
            if len(data) < 2_000 and chosen.random() < 0.05:
                pool.append(data) if len(pool) < len(seeds) + POOL else pool.__setitem__(
                    len(seeds) + chosen.randrange(POOL), data
                )
    return executions


def execute(name: str, data: bytes) -> None:
    try:
        HARNESSES[name](data)
    except BaseException:
        print(f"the harness {name!r} found something in {LAST}: {data!r}", file=sys.stderr)
        raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--only", choices=HARNESSES, action="append", help="a harness to run; all of them by default")
    parser.add_argument("--input", type=Path, help="execute this one input and stop")
    options = parser.parse_args()
    names = options.only or list(HARNESSES)
    if options.input:
        data = options.input.read_bytes()
        for name in names:
            execute(name, data)
        return
    print(f"fuzzing {', '.join(names)} for {options.seconds:g} s, seed {options.seed}", flush=True)
    executions = run(options.seconds, options.seed, names)
    print(f"{executions} executions, no findings")


if __name__ == "__main__":
    main()
