"""The listening sockets of a supervisor, by worker slot, through reloads and execs. Knows sockets; refuses to know who accepts.

Without --reuse-port there is one set, and every worker accepts from it. With it each slot has sockets of its own on the same
addresses: a worker's replacement takes over its slot, with all who wait in its queues, so nobody there is lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from . import identity, sockets
from .config import Config
from .sockets import Listener


class Listening:
    """`sets[slot]` in the order of the addresses; one set for all slots without --reuse-port."""

    def __init__(self, sets: list[list[Listener]]) -> None:
        self.sets = sets

    @classmethod
    def open(cls, config: Config, count: int, before: Listening | None = None) -> Listening:
        """For `count` slots; what `before` has for the same addresses is shared with it. Raises BindError."""
        whom = identity.resolve(config)
        options = sockets.options(config, None if whom is None else whom.owner)
        old: list[list[Listener]] = before.sets if before is not None else []
        first = sockets.bind_all(sockets.addresses(config), options, have=old[0] if old else [])
        result = cls([first])
        try:
            for slot in range(1, count if config.reuse_port else 1):
                result.sets.append([
                    _copy_of(listener, old[0], old[slot]) or sockets.another_set([listener], options)[0]
                    if slot < len(old) else sockets.another_set([listener], options)[0]
                    for listener in first
                ])  # fmt: skip
        except BaseException:
            result.close(but=before)
            raise
        return result

    def of(self, slot: int) -> list[Listener]:
        return self.sets[slot % len(self.sets)]

    def keep(self, count: int) -> None:
        """Let go of the slots from this one on. The kernel fills their queues until their workers close them as well, which
        they do once they have taken what is there."""
        if count < len(self.sets):
            before = Listening(self.sets)
            self.sets = self.sets[:count]
            before.close(but=self)

    def addresses(self, scheme: str) -> list[str]:
        """As the start lines show them."""
        return [sockets.describe(listener.socket, scheme) for listener in self.sets[0]]

    def close(self, but: Listening | None = None) -> None:
        """Close all, but for what another shares."""
        kept = set(map(id, but.all())) if but is not None else set()
        sockets.close_all(listener for listener in self.all() if id(listener) not in kept)

    def close_others(self, slot: int) -> None:
        """In a forked worker: what belongs to other slots; the files stay."""
        ours = set(map(id, self.of(slot)))
        sockets.close_all((listener for listener in self.all() if id(listener) not in ours), remove=False)

    def passed(self) -> list[int]:
        """The descriptors that systemd gave to this process, in its order."""
        return [listener.fileno() for listener in self.sets[0] if listener.place is not None and listener.place.owned]

    def all(self) -> Iterable[Listener]:
        """Each once."""
        return {id(listener): listener for one in self.sets for listener in one}.values()

    def hand_over(self) -> dict[str, Any]:
        """For adopt() after an exec."""
        every = list(self.all())
        number = {id(listener): index for index, listener in enumerate(every)}
        return {"listeners": sockets.hand_over(every), "sets": [[number[id(listener)] for listener in one] for one in self.sets]}

    def take_back(self) -> None:
        """The exec has failed."""
        sockets.take_back(self.all())

    @classmethod
    def adopt(cls, handed: dict[str, Any]) -> Listening:
        every = sockets.adopt(handed["listeners"])
        sockets.take_back(every)
        return cls([[every[index] for index in one] for one in handed["sets"]])


def _copy_of(listener: Listener, first: list[Listener], copies: list[Listener]) -> Listener | None:
    """The one in another slot's set that stands where this one does in the first."""
    for index, one in enumerate(first):
        if one is listener and index < len(copies):
            return copies[index]
    return None
