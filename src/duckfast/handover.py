"""What one image of the supervisor leaves to the next when it replaces itself by exec: descriptors and process ids.

The process stays the same one, so its workers stay its children and its listening sockets stay open: nobody outside notices.
Knows how to write that down in the environment; refuses to know what a worker or a listener does.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Any

VARIABLE = "DUCKFAST_HANDOVER"
CHECK = "check"  # in place of a handover: load everything, say what is wrong with it, and end


@dataclass(frozen=True)
class HandedWorker:
    pid: int
    fd: int  # of the line to it
    cell: int
    slot: int
    retiring: bool


@dataclass(frozen=True)
class Handover:
    pulses: int  # descriptor
    listening: dict[str, Any]  # as Listening.hand_over() says it
    workers: list[HandedWorker]

    def give(self) -> None:
        """Make the next image find it."""
        for fd in self._descriptors():
            os.set_inheritable(fd, True)
        os.environ[VARIABLE] = json.dumps(asdict(self))

    def take_back(self) -> None:
        """The exec has failed: as before."""
        for fd in self._descriptors():
            os.set_inheritable(fd, False)
        os.environ.pop(VARIABLE, None)

    @staticmethod
    def take() -> Handover | None:
        """What the earlier image left, once; its descriptors are not inherited any further."""
        text = os.environ.pop(VARIABLE, None)
        if text is None:
            return None
        facts = json.loads(text)
        handed = Handover(facts["pulses"], facts["listening"], [HandedWorker(**one) for one in facts["workers"]])
        for fd in handed._descriptors():
            os.set_inheritable(fd, False)
        return handed

    def _descriptors(self) -> list[int]:
        return [self.pulses, *(worker.fd for worker in self.workers)]


def is_given() -> bool:
    """Whether an earlier image of this process has left something, or has started this one to check."""
    return VARIABLE in os.environ


def only_checks() -> bool:
    """Whether this process was started just to see if the application loads."""
    return os.environ.get(VARIABLE) == CHECK
