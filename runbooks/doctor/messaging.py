"""NATS as it is reached from here: version, whether JetStream answers, and to which subjects this login may publish."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from diagnostics.privileges import Held, in_nats
from diagnostics.reach import SEE_NATS
from runbooks.doctor.checks import Needs, Subject, Takes, reached, rights, unreached, version, wrong
from runbooks.engine.model import Finding
from sandbox.errors import Denied, Unreachable
from sandbox.facts import Fact, Unknown

__all__ = ["NATS", "Messaging", "findings", "read_messaging"]

NATS = "NATS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Messaging:
    """What answers at `host`, within how many seconds; why JetStream does not, empty where it does; which rights are held."""

    host: str
    seconds: float
    version: str
    silence: str
    held: Held


def read_messaging(subject: Subject, needs: Needs) -> Messaging:
    """Ask it. Raises Unreachable, Denied for a login that is not accepted, or ArrakisError for a malformed address."""
    from sandbox.adapters.nats_access import NatsAccess

    named = subject.environment
    server = NatsAccess(named.nats_url, timeout=subject.deadline, tls_ca=named.nats_tls_ca)
    began = time.monotonic()
    number = server.version()
    seconds, silence, asked = time.monotonic() - began, "", True
    try:
        server.stream("SANDBOX")
    except Denied:
        asked = False
    except Unreachable as error:
        silence = str(error)
    held = in_nats(server, needs.words, heard=asked)
    return Messaging(host=server.host, seconds=seconds, version=number, silence=silence, held=held)


def findings(fact: Fact[Messaging], needs: Needs) -> Iterator[Finding]:
    """Say whether it can be looked at and changed from here. Pure."""
    if isinstance(fact, Unknown):
        yield unreached(NATS, fact, fix=SEE_NATS)
        return
    seen = fact.value
    yield reached(NATS, f"{seen.host} answers", seen.seconds)
    yield version(NATS, NATS, seen.version, least=(2, 9), most=(2,))
    if seen.silence:
        fix = "nats account info  # is JetStream enabled for this account?"
        yield wrong(NATS, "JetStream", seen.silence, fix=fix, takes=Takes.LOOKING)
    fix_of = {word: f'allow this user to publish to "{word}"' for word in seen.held}
    yield from rights(
        NATS,
        needs,
        seen.held,
        fix=fix_of,
        why="it does not say what this login may publish to",
        hint='allow this user to publish to "$SYS.REQ.USER.INFO"',
    )
