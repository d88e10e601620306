"""What the procedures may change, one remedy a verb. Each looks again before it acts, and can say who is in the way."""

from functools import reduce
from operator import or_

from runbooks.engine.gate import Gate
from runbooks.engine.model import Remedy
from runbooks.engine.page import Rights
from runbooks.engine.permission import APPLYING
from runbooks.remedies.cleanup import CleanUp, DropBlocker
from runbooks.remedies.database import GrantRight, Migrate, TryCreating
from runbooks.remedies.indexes import AnalyzeTable, CreateIndex
from runbooks.remedies.maintenance import VacuumTable
from runbooks.remedies.marking import MarkSandboxes, RaiseStop
from runbooks.remedies.quarantine import DeleteKeys, DropSchema, QuarantineKeys, QuarantineSchema
from runbooks.remedies.routing import CorrectStream, CreateConsumer, CreateStream, DeleteRoute, PublishCanary
from runbooks.remedies.service import RestartService
from runbooks.remedies.sessions import CancelQuery, EndSession
from runbooks.remedies.stopping import DisableRule, StopService
from runbooks.remedies.storage import EnlargeStorage
from runbooks.remedies.task import EnableRule, RunTask
from runbooks.remedies.trimming import TrimAuditLog

__all__ = [
    "AnalyzeTable",
    "CancelQuery",
    "CleanUp",
    "CorrectStream",
    "CreateConsumer",
    "CreateIndex",
    "CreateStream",
    "DeleteKeys",
    "DeleteRoute",
    "DisableRule",
    "DropBlocker",
    "DropSchema",
    "EnableRule",
    "EndSession",
    "EnlargeStorage",
    "GrantRight",
    "MarkSandboxes",
    "Migrate",
    "PublishCanary",
    "QuarantineKeys",
    "QuarantineSchema",
    "RaiseStop",
    "RestartService",
    "RunTask",
    "StopService",
    "TrimAuditLog",
    "TryCreating",
    "VacuumTable",
    "remedies",
    "taking",
]


def remedies(gate: Gate) -> dict[str, Remedy]:
    """Return every remedy by its verb, working through the gate."""
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
        TrimAuditLog(gate),
        VacuumTable(gate),
        RaiseStop(gate),
        DisableRule(gate),
        StopService(gate),
        MarkSandboxes(gate),
    ]
    return {remedy.verb: remedy for remedy in made}


def taking(*verbs: type[Remedy]) -> Rights:
    """Return what a login needs to apply plans of these verbs, the engine's own part included."""
    return reduce(or_, (each.rights for each in verbs), APPLYING)
