"""A webhook in a process of its own: `python -m tests.integration.webhooks FOLDER LIMIT [GATE]`.

FOLDER/begun is there when it triages. What it has triaged it writes into FOLDER/triaged, a line each, on disk before it goes on; with
GATE it waits until there is that file.
"""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from runbooks.pagerduty.webhook import listener, settings
from runbooks.pagerduty.webhook.delivery import Delivery
from runbooks.pagerduty.webhook.handler import Request
from runbooks.pagerduty.webhook.server import serve
from tests.unit.webhooks import ACTION_SECRET, EVENT_SECRET, OLD_SECRET, SECRET, TOPIC

ROOT = Path(__file__).parents[2]
VARIABLES = {
    "WEBHOOK_PAGERDUTY_SECRETS": f"{SECRET},{OLD_SECRET}",
    "WEBHOOK_ACTION_SECRETS": ACTION_SECRET,
    "WEBHOOK_EVENT_SECRETS": EVENT_SECRET,
    "WEBHOOK_TOPICS": TOPIC,
}


def main(folder: Path, limit: int, gate: Path | None) -> None:
    """Serve until SIGTERM."""
    # A request that drips is cut off sooner, and it is sooner crowded; so a test need not wait, or open hundreds.
    listener._ARRIVAL, listener._CROWD, listener._MOST = 2.0, 50, 60
    written = os.open(folder / "triaged", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def triage(delivery: Delivery) -> None:
        (folder / "begun").touch()
        while gate and not gate.exists():
            time.sleep(0.01)
        os.write(written, f"{delivery.key} {delivery.subject}\n".encode())
        os.fsync(written)

    serve(
        settings.resolve(os.environ),
        triage,
        folder=folder / "queue",
        port=0,
        limit=limit,
        ready=lambda url: print(url, flush=True),
    )


@dataclass(slots=True)
class Server:
    """A webhook that runs, and what it did."""

    folder: Path
    process: subprocess.Popen[str]
    address: tuple[str, int]
    log: Path
    _kept: http.client.HTTPConnection | None = None

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        if self._kept:
            self._kept.close()

    @property
    def triaged(self) -> list[str]:
        """Return the keys that were triaged so far, as often as they were."""
        return [line.split()[0] for line in (self.folder / "triaged").read_text().splitlines()]

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=30)

    def send(self, request: Request) -> int:
        """Return the status of a request, over a connection that is kept open."""
        self._kept = self._kept or http.client.HTTPConnection(*self.address, timeout=30)
        try:
            self._kept.request(request.method, request.path, request.body, dict(request.headers))
            answer = self._kept.getresponse()
            answer.read()
        except (http.client.HTTPException, OSError):
            self._kept.close()
            self._kept = None
            raise
        return answer.status

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    def metric(self, line: str) -> float:
        """Return the value of a line of /metrics that begins so; 0 where there is none."""
        found = [each for each in self.get("/metrics")[1].splitlines() if each.startswith(line)]
        return float(found[0].rsplit(" ", 1)[1]) if found else 0.0

    def memory(self) -> int:
        """Return how many kB it has in memory."""
        command = ["ps", "-o", "rss=", "-p", str(self.process.pid)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def end(self) -> int:
        """Ask it to end, and return its exit code."""
        self.process.terminate()
        return self.process.wait(60)


@contextmanager
def running(folder: Path, *, limit: int = 1000, gate: Path | None = None) -> Iterator[Server]:
    """Run a webhook whose state is in a folder, for as long as the block lasts."""
    command = [sys.executable, "-m", "tests.integration.webhooks", str(folder), str(limit)]
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(
            [*command, *([str(gate)] if gate else [])],
            cwd=ROOT,
            env={**os.environ, **VARIABLES},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout
    with process, process.stdout:
        try:
            url = urlsplit(process.stdout.readline().strip())
            assert url.hostname, (folder / "log").read_text()
            assert url.port
            address = (url.hostname, url.port)
            with Server(folder=folder, process=process, address=address, log=folder / "log") as server:
                yield server
        finally:
            process.kill()


def now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]) if sys.argv[3:] else None)
