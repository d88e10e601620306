"""How a task of PagerDuty's meets its operator: from an incident or an alarm to the diagnosis, and to the timeline."""

import os
from typing import TYPE_CHECKING

from runbooks.console import Session
from runbooks.options import incident, number
from runbooks.screen import calmly, colour, note, width

if TYPE_CHECKING:
    from runbooks.pagerduty.responder import Responder

__all__ = ["Desk"]


class Desk(Session):
    """One call of such a task. Its environment is the alarm's own, unless one is named."""

    def triage(self, asked: str, alarm: str) -> None:
        """Diagnose what an incident, or an alarm, is about; print it, and put it on the incident's timeline."""

        def work() -> int:
            from runbooks.pagerduty import answer
            from runbooks.pagerduty.incident import Alarm
            from sandbox.errors import ArrakisError

            if bool(asked) == bool(alarm):
                raise ArrakisError(
                    "triage takes an incident or an alarm", hint="say --incident Q1ABC23DEF or --alarm NAME"
                )
            responder, seen = self._responder(), None
            if asked:
                seen, found = responder.incident(incident(asked))
            else:
                found = responder.alarm(Alarm(name=alarm))
            text = answer.text(seen, found, colour=not self.json and colour(), width=width())
            self.show(text, lambda _: answer.document(seen, found))
            if seen:
                responder.report(seen.id, found)
            return found.exit

        self.run(work)

    def flush(self) -> None:
        """Send what waits for timelines on this host, of every environment unless one is named."""

        def work() -> int:
            from runbooks.engine.environment import FOLDER, settings_of
            from runbooks.engine.errors import Exit
            from runbooks.pagerduty.reporter import timeline, waiting

            names = waiting()
            if self.env and self.env not in names:
                settings_of(self.env, FOLDER)  # raises where there is no such environment
            done = [timeline(name, tell=note).flush() for name in names if self.env in ("", name)]
            for reason in dict.fromkeys(reason for each in done for reason in each.reasons):
                note(reason)
            counts = {
                "sent": sum(each.sent for each in done),
                "left": sum(each.left for each in done),
                "refused": sum(each.refused for each in done),
            }
            self.show(", ".join(f"{count} {what}" for what, count in counts.items()), lambda _: counts)
            if counts["left"]:
                return int(Exit.UNKNOWN)
            return int(Exit.PROPOSED if counts["refused"] else Exit.HEALTHY)

        self.run(work)

    def serve(self, host: str, port: str, limit: str, workers: str) -> None:
        """Serve webhooks until SIGTERM or Ctrl-C."""

        def work() -> None:
            from runbooks.engine.environment import state_folder
            from runbooks.pagerduty.webhook.server import serve
            from runbooks.pagerduty.webhook.settings import resolve

            def ready(address: str) -> None:
                note(f"serving {address} until Ctrl-C")

            folder = state_folder(os.environ) / "webhook"
            settings, responder = resolve(os.environ), self._responder()
            responder.check()
            serve(
                settings,
                responder.answer,
                folder=folder,
                host=host,
                port=number("--port", port, most=65_535) or 8080,
                limit=number("--limit", limit) or 1000,
                workers=number("--workers", workers, most=16) or 2,
                ready=ready,
            )

        calmly(work)

    def _responder(self) -> "Responder":
        from runbooks.pagerduty.responder import Responder, named

        return Responder(named(self.env, os.environ), timeout=self.seconds(), tell=note)
