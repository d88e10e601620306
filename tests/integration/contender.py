"""A process that creates, registers, extends and destroys at random, with others at the same guilds and owners.

`python -m tests.integration.contender SEED SANDBOXES` prints how each step ended, as one JSON object.
"""

import json
import os
import random
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import count
from threading import Lock, Thread
from uuid import UUID

from sandbox import lifecycle, removal, routes
from sandbox.adapters.postgres import Postgres
from sandbox.adapters.redis import Redis
from sandbox.errors import ArrakisError, SandboxError
from sandbox.lifecycle import Request

GUILDS = [str(1000 + number) for number in range(20)]
OWNERS = [f"owner-{number}" for number in range(4)]
THREADS = 4


class Contender:
    """One process' part: `said` counts how its steps ended."""

    def __init__(self, seed: int, sandboxes: int) -> None:
        self._seed, self._sandboxes, self._lock = seed, sandboxes, Lock()
        self._names: list[str] = []
        self.said: Counter[str] = Counter()

    def run(self) -> None:
        """Do all of it, in some threads."""
        threads = [Thread(target=self._work, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work(self, number: int) -> None:
        chance = random.Random(f"{self._seed}-{number}")
        database, keys = Postgres(os.environ["DATABASE_URL"], tag="contender"), Redis(os.environ["REDIS_URL"])
        for turn in count():
            name = f"c{self._seed}-{number}-{turn}"
            if self._step(database, keys, "create", name, chance):
                self._names.append(name)
            if self.said["create done"] >= self._sandboxes or turn > 4 * self._sandboxes:
                return
            step = chance.choice(["register", "register", "look", "extend", "unregister"])
            self._step(database, keys, step, self._any(chance), chance)
            self._step(database, keys, "destroy", self._any(chance), chance)

    def _any(self, chance: random.Random) -> str:
        """A recent sandbox of this process, or one of the same name but for the process: as many of those exist."""
        mine = chance.choice([*self._names[-12:], "c0-0-0"])
        return mine if chance.random() < 0.7 else f"c{1 - self._seed}{mine[2:]}"

    def _step(self, database: Postgres, keys: Redis, step: str, name: str, chance: random.Random) -> bool:
        guild, now, actor = chance.choice(GUILDS), datetime.now(UTC), f"c{self._seed}"
        try:
            match step:
                case "create":
                    guilds = chance.sample(GUILDS, chance.choice([0, 0, 0, 1, 2]))
                    made = UUID(int=chance.getrandbits(128), version=4)
                    request = Request(id=made, name=name, owner=chance.choice(OWNERS), now=now, guilds=guilds)
                    lifecycle.create(database, keys, request)
                case "register":
                    lifecycle.register_guild(database, keys, name, guild, actor=actor)
                case "unregister":
                    lifecycle.unregister_guild(database, keys, name, guild, actor=actor)
                case "extend":
                    lifecycle.extend(database, keys, name, timedelta(hours=1), actor=actor, now=now)
                case "look":
                    routes.look_up(database, keys, guild)
                case "destroy":
                    removal.destroy(database, keys, name, actor=actor, now=now)
            ended = "done"
        except SandboxError as error:
            ended = str(error.code)
        except ArrakisError as error:
            ended = f"{type(error).__name__}: {error}"
        with self._lock:
            self.said[f"{step} {ended}"] += 1
        return ended == "done"


if __name__ == "__main__":
    contender = Contender(int(sys.argv[1]), int(sys.argv[2]))
    contender.run()
    print(json.dumps(contender.said))
