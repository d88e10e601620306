"""What destroying a sandbox would take. Handed readers only, so looking cannot change a thing."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from sandbox import registry, schemas, teardown
from sandbox.errors import ArrakisError
from sandbox.limits import check_name
from sandbox.model import Sandbox
from sandbox.ports import KeyReader, SqlReader

__all__ = ["Preview", "preview"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A sandbox and all that would go with it. `keys` is None where Redis did not say; `unknown` is why.

    `dependents` are objects elsewhere that would be taken along: as long as there are any, it is not destroyed.
    """

    sandbox: Sandbox
    schemas: Sequence[str]
    guilds: Sequence[str]
    dependents: Sequence[str]
    keys: int | None
    unknown: str = ""

    @property
    def nothing(self) -> bool:
        """Whether it is certain that there is nothing to take away."""
        return not self.sandbox.live and not self.schemas and not self.guilds and self.keys == 0


def preview(database: SqlReader, keys: KeyReader, name: str) -> Preview:
    """Look at what destroying a sandbox would take. Raises SandboxError 004, Unreachable without the database."""
    check_name(name)
    with database.snapshot() as snapshot:
        row = registry.by_name(snapshot, name)
        if row is None:
            raise registry.not_found(name)
        found = teardown.belongings(snapshot, row)
        dependents = [*chain.from_iterable(schemas.dependents(snapshot, found.schemas).values())]
    count, unknown = None, ""
    try:
        count = teardown.keys_of(keys, found.roster, row)
    except ArrakisError as error:
        unknown = str(error)
    return Preview(
        sandbox=row,
        schemas=found.schemas,
        guilds=found.guilds,
        dependents=dependents,
        keys=count,
        unknown=unknown,
    )
