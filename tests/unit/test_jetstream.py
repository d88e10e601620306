"""A stream is created again though one of its name was deleted a moment ago."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from sandbox.adapters import jetstream
from sandbox.adapters.jetstream import JetStream, Refusal

BUSY = {"error": {"code": 500, "err_code": 10049, "description": "error creating store for stream"}}
TAKEN = {"error": {"code": 400, "err_code": 10058, "description": "stream name already in use"}}
MADE = {"config": {"name": "S"}}


class Server:
    """Answers one thing after the other."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.answers, self.asked = list(answers), list[str]()

    async def request(self, subject: str, *_: object, **__: object) -> Any:
        self.asked.append(subject)
        return SimpleNamespace(data=json.dumps(self.answers.pop(0)).encode())


def made(server: Server) -> dict[str, Any]:
    client: Any = server
    return asyncio.run(JetStream(client, timeout=1)._made("S", {"name": "S"}))


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetstream, "_PAUSES", (0, 0, 0))


@pytest.mark.parametrize("times", range(4))
def test_while_the_files_of_another_are_cleared_away_it_is_tried_again(times: int) -> None:
    server = Server(*[BUSY] * times, MADE)
    assert made(server) == MADE
    assert server.asked == ["$JS.API.STREAM.CREATE.S"] * (times + 1)


@pytest.mark.parametrize(("answers", "asked"), [([BUSY] * 9, 4), ([TAKEN], 1), ([BUSY, TAKEN], 2)])
def test_what_stays_so_and_any_other_refusal_is_told(answers: list[dict[str, Any]], asked: int) -> None:
    server = Server(*answers)
    with pytest.raises(Refusal):
        made(server)
    assert len(server.asked) == asked
