"""How a task meets its operator: the target, the questions, the output, and how it ends."""

import json as jsonlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runbooks.options import Telling, number
from runbooks.screen import INTERRUPTED, asking, calmly, colour, note, width

if TYPE_CHECKING:
    from runbooks.engine.distributed import Coordinator
    from runbooks.engine.environment import Environment
    from runbooks.engine.model import Runbook
    from runbooks.engine.operate import Operator
    from runbooks.pagerduty.reporter import Reporter
    from runbooks.reports.meter import Meter
    from runbooks.reports.timeline import Note

__all__ = ["Session"]


class Session:
    """One call of a task: the target, where output goes, and how it ends."""

    interrupted = INTERRUPTED

    def __init__(
        self,
        name: str,
        *,
        env: str,
        json: bool,
        timeout: str = "10",
        report: str = "",
        telling: Telling | None = None,
    ) -> None:
        self.name, self.env, self.json, self.timeout, self.report = name, env, json, timeout, report
        self.telling = telling or Telling()
        self.environment: Environment | None = None
        self._operating: Operator | None = None
        self._reporter: Reporter | None = None
        self._meter: Meter | None = None

    def diagnose(
        self,
        runbook: "Callable[[], Runbook]",
        *,
        apply: bool,
        yes: bool,
        max_targets: str,
        options: "Callable[[], dict[str, Any]]" = dict,
        about: "Callable[[], dict[str, Any]]" = dict,
        trial: bool = False,
        distributed: bool = False,
    ) -> None:
        """Diagnose and plan; with `apply` go on to apply the plan. `options` returns, or refuses, the runbook's own.

        So does `about` what the runbook is asked about; with `trial` it tries out for real what it can. With `distributed` the plan
        is handed over to workers.
        """
        from runbooks.reports import document, terminal

        def work() -> int:
            self.telling.insist_on(apply)
            named = self.telling.named
            limit, asked, wanted = number("--max-targets", max_targets), about(), options()
            operator, procedure = self._operator(), runbook()
            tried = asking(yes) if trial else None
            found = operator.diagnose(procedure, about=asked, trial=tried, **wanted)
            text = terminal.diagnosis(found, colour=not self.json and colour(), width=width(), incident=named)
            if self._reporter and not (apply and procedure.urgent):  # which says what was done, at once
                self._reporter.diagnosed(found)
            if not apply or found.plan is None:
                if self.telling.status:
                    note(f"{named} stays as it is: nothing was applied")
                self.show(text, lambda notes: document.diagnosed(found, notes=notes, incident=named))
                return int(found.exit)
            print(text, file=sys.stderr if self.json else sys.stdout)
            plan, ask = found.plan, asking(yes)
            if distributed:
                return self._hand_over(
                    operator,
                    lambda boss: (boss.start(plan, procedure, ask=ask, max_targets=limit), procedure),
                )
            return self._finish(operator.apply(plan, procedure, ask=ask, max_targets=limit))

        self.run(work)

    def change(self, change: "Callable[[Operator], Any]") -> None:
        """Do something that changes the target, and print what became of it."""
        self.run(lambda: self._finish(change(self._operator())))

    def hand_over(self, begin: "Callable[[Operator, Coordinator], tuple[str, Runbook]]") -> None:
        """Have a run handed over to workers, follow it, and print what became of it. `begin` returns the run and its runbook."""

        def work() -> int:
            operator = self._operator()
            return self._hand_over(operator, lambda coordinator: begin(operator, coordinator))

        self.run(work)

    def resume(
        self, run: str, runbooks: "Callable[[], Mapping[str, Runbook]]", *, yes: bool, alone: bool
    ) -> None:
        """Take up a run, and print what became of it; one that was on the work queue is put there again, unless `alone`."""

        def work() -> int:
            from runbooks.engine.apply import plan_of
            from runbooks.engine.distributed import distributed

            operator, known, ask = self._operator(), runbooks(), asking(yes)
            past = operator.records(run)
            if alone or not distributed(past):
                return self._finish(operator.resume(run, known, ask=ask))
            runbook = known[plan_of(past).runbook]
            return self._hand_over(operator, lambda boss: (boss.resume(run, known, ask=ask), runbook))

        self.run(work)

    def follow(self, run: "Callable[[Operator], str]") -> None:
        """Follow a run until it is over, or Ctrl-C."""

        def work() -> int:
            operator = self._operator()
            return self._follow(operator, run(operator))

        self.run(work)

    def look(self, look: "Callable[[Operator], tuple[str, Any]]") -> None:
        """Print something of the journal."""

        def work() -> int:
            text, data = look(self._operator())
            self.show(text, lambda _: data)
            return 0

        self.run(work)

    def job(self, job: "Callable[[Callable[[], Environment], str, float], int]") -> None:
        """Run a scheduled job, which does its own talking: it is given how to get the target, its name, a time-out in s."""
        self.run(lambda: int(job(self._resolved, self.named, self.seconds())))

    @property
    def named(self) -> str:
        """Return the target's name, though it may not be there."""
        return self.env or os.environ.get("ARRAKIS_ENV") or "custom"

    def _operator(self) -> "Operator":
        from runbooks.engine.operate import Operator
        from runbooks.reports.meter import Meter

        self._meter, named = Meter(note), self.telling.named
        if named:
            from runbooks.pagerduty.reporter import Reporter

            self._reporter = Reporter(named, self.named, tell=note, said=self.telling.said)
        environment = self._resolved()
        self._operating = Operator(
            environment, timeout=self.seconds(), progress=self._meter, tell=self._meter.tell
        )
        return self._operating

    def seconds(self) -> int:
        """Return what a diagnosis and each call may take, in seconds. Raises ArrakisError for what is no number."""
        return number("--timeout", self.timeout) or 10

    def _resolved(self) -> "Environment":
        from runbooks.engine.environment import FOLDER, resolve, state_folder

        state = state_folder(os.environ)
        self.environment = resolve(self.env or None, os.environ, FOLDER, state)
        return self.environment

    def _send(self) -> None:
        """Send what the incident is to hear. The work is over: whoever will not wait for it loses nothing."""
        try:
            if self._reporter:
                self._reporter.send()
        except KeyboardInterrupt:
            note("not all of it was sent: it waits on disk, and `pagerduty-flush` sends it")

    def _hand_over(self, operator: "Operator", begin: "Callable[[Coordinator], tuple[str, Runbook]]") -> int:
        from runbooks.engine.distributed import Coordinator, work_queue
        from runbooks.engine.environment import command

        coordinator = Coordinator(operator, work_queue(operator.environment, timeout=self.seconds()))
        run, runbook = begin(coordinator)
        base = command(operator.environment)
        note(f"Workers, on as many hosts as you like:  {base} cleanup-worker")
        note(f"Ctrl-C ends the watching alone. From anywhere:  {base} mass-cleanup --watch {run}")
        self._follow(operator, run)
        return self._finish(coordinator.outcome(run, runbook))

    def _follow(self, operator: "Operator", run: str) -> int:
        from runbooks.engine.distributed import work_queue
        from runbooks.engine.following import watch
        from runbooks.reports.following import follow

        queue = work_queue(operator.environment, timeout=self.seconds())
        said = print if self.json and self.name == "watch" else note
        return int(follow(watch(operator.sql, queue, run), as_json=said is print, say=said))

    def _finish(self, outcome: Any) -> int:
        from runbooks.reports import terminal

        assert self.environment is not None
        if self._meter:
            self._meter.close()
        text = terminal.applied(
            outcome,
            environment=self.environment,
            colour=not self.json and colour(),
            width=width(),
            incident=self.telling.named,
        )
        self.show(text, lambda notes: self._applied(outcome, notes))
        self._report(outcome)
        return int(outcome.exit)

    def _applied(self, outcome: Any, notes: "Sequence[Note]") -> dict[str, Any]:
        from runbooks.catalogue import RUNBOOKS
        from runbooks.reports import document

        assert self._operating is not None  # which the outcome is of
        return document.applied(
            outcome,
            environment=self._operating.environment,
            title=RUNBOOKS[outcome.plan.runbook].title,
            at=_now(),
            by=self._operating.actor,
            records=self._operating.records(outcome.run),
            notes=notes,
            incident=self.telling.named,
        )

    def _report(self, outcome: Any) -> None:
        """Tell the incident, if one was named, and change its status, if that was asked for."""
        if self._reporter is None:
            return
        assert self._operating is not None  # which the outcome is of
        operator = self._operating
        self._reporter.applied(outcome, operator.environment)
        if self.telling.status:
            from runbooks.catalogue import RUNBOOKS

            self._reporter.settle(
                outcome,
                acknowledge=self.telling.acknowledge,
                resolve=self.telling.resolve,
                look=lambda: operator.diagnose(RUNBOOKS[outcome.plan.runbook]),
            )

    def show(self, text: str, document: "Callable[[Sequence[Note]], Any]") -> None:
        """Print the answer, as text or as the one document; then write the report that was asked for.

        The report has in it what was said on the incident's timeline: `document` is made anew with these notes.
        """
        try:
            print(jsonlib.dumps(document([]), indent=1) if self.json else text, flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            note(f"the answer cannot be printed: {error.strerror}")
        if self.report:
            self._keep(document(self._reporter.notes() if self._reporter else []))

    def _keep(self, document: Any) -> None:
        """Write the report that was asked for, if one was."""
        if self.report:
            from runbooks.reports import files

            try:
                note(f"report: {files.write(document, Path(self.report))}")
            except OSError as error:
                note(f"the report cannot be written to {self.report}: {error.strerror}")

    def run(self, work: Callable[[], int]) -> None:
        """Do it, and exit with its code; whatever goes wrong is one line, and told to the incident that was named."""
        from runbooks.reports import document

        def closing() -> int:
            try:
                return work()
            except Exception as error:
                if self._reporter:
                    self._reporter.failed(self.name, error)
                raise
            except KeyboardInterrupt:
                self._reporter = None  # what it has to tell waits on disk
                raise
            finally:
                if self._meter:
                    self._meter.close()
                self._send()

        def failed(error: Any) -> None:
            name = self.environment.name if self.environment else None
            told = document.failed(error, runbook=self.name, environment=name, at=_now())
            if self.json:
                print(jsonlib.dumps(told, indent=1))
            self._keep(told)

        calmly(closing, failed=failed, interrupted=self.interrupted)


def _now() -> datetime:
    return datetime.now(UTC)
