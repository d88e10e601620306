"""What the procedures may change, one remedy a verb. Each looks again before it acts, and can say who is in the way."""

from collections.abc import Callable

from runbooks.engine.model import Remedy
from runbooks.engine.systems import Readers, Writers
from runbooks.remedies.cleanup import CleanUp, DropBlocker
from runbooks.remedies.database import GrantRight, Migrate, TryCreating
from runbooks.remedies.gate import Gate
from runbooks.remedies.indexes import AnalyzeTable, CreateIndex
from runbooks.remedies.quarantine import DeleteKeys, DropSchema, QuarantineKeys, QuarantineSchema
from runbooks.remedies.routing import CorrectStream, CreateConsumer, CreateStream, DeleteRoute, PublishCanary
from runbooks.remedies.service import RestartService
from runbooks.remedies.sessions import CancelQuery, EndSession
from runbooks.remedies.storage import EnlargeStorage
from runbooks.remedies.task import EnableRule, RunTask
from sandbox.ports import SqlTransaction

__all__ = ["remedies"]


def remedies(
    read: Readers, write: Writers, fence: Callable[[SqlTransaction], None], tell: Callable[[str], None]
) -> dict[str, Remedy]:
    """Return every remedy by its verb; `tell` takes a line about what happens on the way."""
    gate = Gate(read=read, write=write, fence=fence, tell=tell)
    made: list[Remedy] = [
        QuarantineSchema(gate),
        QuarantineKeys(gate),
        DropSchema(gate),
        DeleteKeys(gate),
        CleanUp(gate),
        DropBlocker(gate),
        EnableRule(gate),
        RunTask(gate),
        DeleteRoute(gate),
        CreateStream(gate),
        CorrectStream(gate),
        CreateConsumer(gate),
        PublishCanary(gate),
        RestartService(gate),
        EndSession(gate),
        CancelQuery(gate),
        GrantRight(gate),
        Migrate(gate),
        TryCreating(gate),
        EnlargeStorage(gate),
        CreateIndex(gate),
        AnalyzeTable(gate),
    ]
    return {remedy.verb: remedy for remedy in made}
