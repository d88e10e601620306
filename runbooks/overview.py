"""How a task that looks at everything, or explains it, meets its operator: it changes nothing anywhere."""

import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runbooks.console import Session
from runbooks.options import choice, choices
from runbooks.screen import colour, note, width

if TYPE_CHECKING:
    from collections.abc import Callable

    from runbooks.audit.sections import Section
    from runbooks.audit.summary import Audit
    from runbooks.engine.model import Severity
    from runbooks.reports.pages import Usage

__all__ = ["Overview"]

_SHOWS = {"emergency-status": "emergency-resume"}  # tasks whose page is another one's


class Overview(Session):
    """One call of such a task."""

    interrupted = "interrupted: nothing was changed"

    def audit(self, *, only: str, since: str, fail_on: str) -> None:
        """Look at everything, compare it with an earlier audit, print it, and keep it."""

        def work() -> int:
            from runbooks.audit import text
            from runbooks.audit.changes import changes
            from runbooks.audit.sections import SECTIONS
            from runbooks.audit.shelf import NONE, Shelf
            from runbooks.audit.summary import document
            from runbooks.engine.model import Severity

            names = choices("--only", only, tuple(SECTIONS))
            failing = Severity(choice("--fail-on", fail_on, ("warning", "critical")))
            environment, at = self._resolved(), datetime.now(UTC)
            named = f"audit-{at:%Y%m%d-%H%M%S}-{os.urandom(2).hex()}"
            shelf = Shelf(environment.state / "audits", note)
            earlier = None if since == NONE else shelf.earlier(since, names, now=named)
            audit = self._audited(named, names, at, failing)
            now = document(audit, None)
            if earlier is not None:
                now["changes"] = changes(earlier, now)
            told = text.text(audit, now["changes"], colour=not self.json and colour(), width=width())
            try:  # before it is printed: who reads it may go away
                kept = f"report: {shelf.keep(now)}"
            except OSError as error:
                kept = f"the audit cannot be kept in {environment.state}: {error.strerror}"
            self.show(told, lambda _: now)
            note(kept)
            return int(audit.exit)

        self.run(work)

    def doctor(self) -> None:
        """Say whether this machine is ready, to look and to change; of the machine alone where no environment is named."""

        def work() -> int:
            from runbooks.doctor import examine
            from runbooks.engine.lease import actor
            from runbooks.reports import checkup

            found = examine(self._resolved, timeout=self.seconds())
            where, at = self.environment, datetime.now(UTC)
            told = checkup.text(found, environment=where, colour=not self.json and colour(), width=width())
            self.show(told, lambda _: checkup.document(found, environment=where, at=at, by=actor()))
            return int(checkup.exit_of(found))

        self.run(work)

    def verify(self) -> None:
        """Verify this host's journal, and what it copied to others' keeping; print what came of it."""

        def work() -> int:
            from runbooks.engine.systems import readers
            from runbooks.engine.verification import verification
            from runbooks.reports import runs

            environment, seconds = self._resolved(), self.seconds()
            read = readers(environment, tag=f"arrakis-runbooks:{self.name}", timeout=seconds)
            found = verification(environment, sql=read.sql, aws=read.aws, timeout=seconds)
            text, document = runs.verified(found, colour=not self.json and colour(), width=width())
            self.show(text, lambda _: document)
            return int(found.exit)

        self.run(work)

    def explain(self, name: str, usage_of: "Callable[[str], Usage]") -> None:
        """Print a runbook's page. What an alarm is called does as well as the runbook's own name."""

        def work() -> int:
            from runbooks.catalogue import RUNBOOKS, called_for
            from runbooks.reports.pages import explained
            from sandbox.errors import ArrakisError
            from sandbox.text import near

            runbook = RUNBOOKS.get(_SHOWS.get(name, name)) or called_for(name)
            if runbook is None:
                meant = near(name, RUNBOOKS)
                hint = f"did you mean {meant}?" if meant else f"there are {', '.join(RUNBOOKS)}"
                raise ArrakisError(f"there is no runbook {name!r}", hint=hint)
            print(explained(runbook, usage_of(runbook.name), width=width(), colour=colour()))
            return 0

        self.run(work)

    def docs(self, usage_of: "Callable[[str], Usage]", *, check: bool) -> None:
        """Write the runbooks' pages; with `check` only say which are not as they should be, and end with 1 if any is."""

        def work() -> int:
            from runbooks.catalogue import RUNBOOKS
            from runbooks.engine.environment import command
            from runbooks.reports import granting, handbook

            known = RUNBOOKS.values()
            wanted = {
                handbook.FOLDER: handbook.made(known, usage_of),
                granting.FOLDER: granting.made(known),
            }
            if not check:
                done = [line for folder, files in wanted.items() for line in handbook.write(files, folder)]
                print("\n".join(done or ["all pages are as they should be"]))
                return 0
            found = [line for folder, files in wanted.items() for line in handbook.differing(files, folder)]
            print(
                "\n".join(
                    [*found, f"  next: {command()} docs"] if found else ["all pages are as they should be"]
                )
            )
            return int(bool(found))

        self.run(work)

    def _audited(self, named: str, names: "tuple[str, ...]", at: datetime, failing: "Severity") -> "Audit":
        from runbooks.audit import text
        from runbooks.audit.sections import look
        from runbooks.audit.summary import Audit
        from runbooks.engine.lease import actor

        assert self.environment is not None  # it was resolved
        began = time.monotonic()

        def tell(section: "Section") -> None:
            note(text.progress(section))

        sections = look(self.environment, names, now=at, timeout=self.seconds(), tell=tell)
        return Audit(
            id=named,
            environment=self.environment,
            at=at,
            by=actor(),
            seconds=time.monotonic() - began,
            sections=sections,
            fail_on=failing,
        )
