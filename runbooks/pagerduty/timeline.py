"""An incident's timeline: one note a step, put there as soon as PagerDuty can be reached, and never twice.

What is to be told is kept on disk first. To send it, the notes are read, and the one that ends with the step's own line is
changed; only where there is none, one is added. So after an answer that was lost, nothing is sent again unseen.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from runbooks.pagerduty.account import Account
from runbooks.pagerduty.client import Client, Declined, Note
from runbooks.pagerduty.outbox import Item, Outbox
from sandbox.deadline import within
from sandbox.errors import ArrakisError, Missing, Throttled
from sandbox.text import clean, counted

__all__ = ["Flushed", "Timeline", "written"]

MOST_BYTES = 65_535  # of a note, in UTF-8
MOST_NOTES = 2_000  # of an incident
_MARK = "-- arrakis-runbooks: "
_STEP = 200  # characters of a step's name
_ASKING = 10.0  # seconds for whoever keeps the key
_FAILURES = 3  # incidents in a row that cannot be told, after which no other is tried
_WAITED = 60.0  # seconds after which a status may have been overtaken
_OLD = 600.0  # seconds after which nobody knows whether all is healthy still


@dataclass(frozen=True, slots=True, kw_only=True)
class Flushed:
    """What became of what waited: how many were sent, how many go on waiting or were set aside, and what went wrong."""

    sent: int
    left: int
    reasons: tuple[str, ...]
    refused: int = 0


class Timeline:
    """The timelines of an account's incidents, as this host tells them. Nothing here raises when PagerDuty fails."""

    def __init__(
        self,
        account: Callable[[], Account | None],
        folder: Path,
        tell: Callable[[str], None],
        *,
        flush: str = "invoke pagerduty-flush",
    ) -> None:
        """Take how to get the account, asked only when there is something to send; the folder of what waits; who is told.

        `flush` is the command that sends what waits.
        """
        self._account, self._outbox, self._tell, self._flush = account, Outbox(folder), tell, flush
        self._held: list[Item] = []  # what the disk would not take
        self._own: set[str] = set()  # the incidents that were kept for here

    def keep(self, incident: str, step: str, text: str) -> None:
        """Keep a step's note on disk until it is sent; it takes the place of an earlier one of that step."""
        self._keep(incident, _named(step), written(step, text))

    def keep_status(self, incident: str, status: str) -> None:
        """Keep the status, acknowledged or resolved, that an incident is to have after the notes that were kept before."""
        self._keep(incident, None, status)

    def send(self) -> Flushed:
        """Send what waits within the account's time-out, what was kept here first. What is left goes on waiting; that is told."""
        done = self._send(bounded=True)
        for reason in done.reasons:
            self._tell(reason)
        if self._held:
            self._tell(f"{counted(len(self._held), 'note')} could be neither sent nor kept, and will be lost")
        if waiting := done.left - len(self._held):
            waits, them = counted(waiting, "note waits", "notes wait"), "it" if waiting == 1 else "them"
            self._tell(f"{waits} on disk; `{self._flush}` sends {them}")
        return done

    def read(self, incident: str) -> list[Note]:
        """Return an incident's notes, within the account's time-out; none where PagerDuty does not tell, which is told."""
        try:
            account = within(_ASKING, self._account, "the keeper of PagerDuty's key")
            if account is None:
                return []
            with closing(Client(account, budget=account.timeout)) as client:
                return client.notes(incident)
        except ArrakisError as error:
            self._tell(f"the notes of {incident} cannot be read: {_told(error)}")
            return []

    def flush(self) -> Flushed:
        """Send all that waits, oldest first, each within the account's time-out."""
        return self._send(bounded=False)

    def _keep(self, incident: str, step: str | None, text: str) -> None:
        self._own.add(incident)
        try:
            self._outbox.keep(incident, step, text)
        except ArrakisError as error:
            self._tell(
                f"a note for {clean(incident)} is only in memory until it is sent: {error}; {error.hint}"
            )
            self._held.append(Item(name=f"{time.time_ns():020d}", incident=incident, step=step, text=text))

    def _send(self, *, bounded: bool) -> Flushed:
        spoilt = self._sweep()
        items = self._items()
        if not items:
            return Flushed(sent=0, left=0, reasons=tuple(spoilt))
        try:
            account = within(_ASKING, self._account, "the keeper of PagerDuty's key")
        except ArrakisError as error:
            return Flushed(sent=0, left=len(items), reasons=(*spoilt, _told(error)))
        if account is None:
            return Flushed(sent=0, left=len(items), reasons=(*spoilt, "PAGERDUTY_TOKEN is not set"))
        sending = _Sending(self._outbox, self._held, account, self._tell, bounded=bounded)
        sending.all(sorted({item.incident: None for item in items}, key=lambda name: name not in self._own))
        self._held = [item for item in self._held if item not in sending.gone]
        reasons = tuple(dict.fromkeys([*spoilt, *sending.reasons]))
        refused = len(sending.gone) - sending.sent
        return Flushed(sent=sending.sent, left=len(self._items()), reasons=reasons, refused=refused)

    def _items(self) -> list[Item]:
        return [*self._outbox.items(), *self._held]

    def _sweep(self) -> list[str]:
        try:
            names = self._outbox.sweep()
        except OSError as error:
            return [f"what waits cannot be read: {error.strerror}"]
        return [f"{name} cannot be read: it is set aside in {self._outbox.refused}" for name in names]


class _Sending:
    """One round of sending."""

    def __init__(
        self,
        outbox: Outbox,
        held: Sequence[Item],
        account: Account,
        tell: Callable[[str], None],
        *,
        bounded: bool,
    ) -> None:
        self._outbox, self._held, self._account, self._tell = outbox, held, account, tell
        self._client = Client(account, budget=account.timeout if bounded else None)
        self._end = time.monotonic() + account.timeout if bounded else float("inf")
        self._said: set[str] = set()
        self.sent = 0
        self.gone: list[Item] = []
        self.reasons: list[str] = []

    def all(self, incidents: Sequence[str]) -> None:
        """Send what can be sent, an incident after the other; after one failure that incident's later items wait with it."""
        failures = 0
        for incident in incidents:
            try:
                self._tell_incident(incident)
                failures = 0
            except (ArrakisError, OSError) as error:
                if self.sent and time.monotonic() >= self._end:  # it went well as long as there was time
                    break
                self.reasons.append(_told(error))
                failures += 1
                if isinstance(error, Throttled) or failures == _FAILURES:
                    break
        self._client.close()

    def _tell_incident(self, incident: str) -> None:
        until = min(time.monotonic() + self._account.timeout, self._end)
        with self._outbox.locked(incident, until):  # others send and keep meanwhile: see what waits now
            held = [item for item in self._held if item.incident == incident]
            for item in [*self._outbox.items(incident), *held]:
                self._send(item)

    def _send(self, item: Item) -> None:
        text = item.text.replace(self._account.token, "…")  # nobody should have written it there
        plain = replace(item, text=text)
        try:
            done = self._note(plain) if item.step is not None else self._settle(plain)
        except (Declined, Missing) as error:
            self._outbox.refuse(plain, str(error))
            what = f"what {item.incident} was to be told is set aside in {self._outbox.refused}"
            self.reasons.append(f"{what}: {_told(error)}")
        else:
            self._outbox.done(item)
            self.sent += 1
            if done not in self._said:
                self._said.add(done)
                self._tell(done)
        self.gone.append(item)

    def _note(self, item: Item) -> str:
        """See to it that a step's note is there, once; return what was done."""
        notes, done = self._client.notes(item.incident), f"put on the timeline of {item.incident}"
        same = [note for note in notes if _last(note.text) == _last(item.text)]
        if not same:
            if len(notes) >= MOST_NOTES:
                raise Declined(f"it has {MOST_NOTES} notes, and PagerDuty takes no more")
            self._client.add_note(item.incident, item.text)
            return done
        first, *others = same
        if _plain(first.text) != _plain(item.text):
            self._change(item, first.id)
        for note in others:  # two hosts told it at once, or an answer came too late to be seen
            if note.author and note.author == first.author:  # a person may have copied the line
                self._client.remove_note(item.incident, note.id)
        return done

    def _change(self, item: Item, note: str) -> None:
        try:
            self._client.change_note(item.incident, note, item.text)
        except Missing:  # somebody has just taken it away
            self._client.add_note(item.incident, item.text)

    def _settle(self, item: Item) -> str:
        """Set the status, unless it was kept too long ago, or somebody has changed it since: what was verified may not hold now."""
        age = time.time() - item.kept_at
        if item.text == "resolved" and age > _OLD:
            raise Declined(f"that all is healthy was seen {age / 60:.0f} minutes ago", hint="look again")
        if age > _WAITED:
            changed = self._client.incident(item.incident).get("last_status_change_at")
            if isinstance(changed, str) and _seconds(changed) > item.kept_at:
                raise Declined(f"its status was changed since, so it is not set to {item.text}")
        return f"{item.incident} is {self._client.set_status(item.incident, item.text)}"


def written(step: str, text: str) -> str:
    """Return a step's note: plain lines, no longer than PagerDuty takes, and last the line that it is found by."""
    lines = (clean(line.expandtabs(4)).rstrip() for line in text.splitlines())
    body, last = "\n".join(lines).strip("\n").encode(), f"{_MARK}{_named(step)}"
    room = MOST_BYTES - len(last.encode()) - 1
    if len(body) > room:
        kept = body[: room - len(_cut(len(body))) - 1].decode(errors="ignore")  # never half a character
        body = f"{kept}\n{_cut(len(body) - len(kept.encode()))}".encode()
    return f"{body.decode()}\n{last}"


def _named(step: str) -> str:
    """Return a step's name as the last line of its note can have it."""
    return clean(step).strip()[:_STEP]


def _cut(count: int) -> str:
    return f"[cut: {count:,} bytes left out]"


def _last(text: str) -> str:
    """Return the line that a note is found by; empty for one that is not ours."""
    line = text.rstrip().rpartition("\n")[2].strip()
    return line if line.startswith(_MARK) else ""


def _plain(text: str) -> list[str]:
    """Return a note without what may get lost on the way: the ends of its lines."""
    return [line.rstrip() for line in text.strip().splitlines()]


def _seconds(moment: str) -> float:
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return 0.0


def _told(error: ArrakisError | OSError) -> str:
    if isinstance(error, ArrakisError):
        return f"{error}; {error.hint}" if error.hint else str(error)
    return f"what waits on disk cannot be had: {error.strerror}"
