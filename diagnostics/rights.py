"""What a role needs to create sandboxes, and what of it is granted: here, and to the role that the deployed system works as."""

from dataclasses import dataclass

from diagnostics import migration
from sandbox.ports import SqlSnapshot

__all__ = ["SEE_RIGHTS", "Function", "Right", "Rights", "Role", "read_rights"]

SEE_RIGHTS = (
    "psql -c '\\l+' -c '\\dn+ public' -c '\\df+ public.*sandbox*' -c '\\dp public.sandbox*'  # any role"
)

_CREATE = "create_sandbox_schema"


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """Who asks. `deployed_exists`: the deployed system's role is there; `may_act`: this one may act as it.

    `may_migrate`: it may create in the schema public. `recovering`: the server is a replica; `read_only`: it, or this role, was
    set to take no writes.
    """

    name: str
    database: str
    superuser: bool
    recovering: bool
    read_only: bool
    may_migrate: bool
    deployed_exists: bool
    may_act: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """A privilege on something, which a role has or lacks; its names are quoted as SQL wants them.

    `may_grant`: the asking role may give it. `statement` gives it, `taking` takes it away again.
    """

    role: str
    privilege: str
    kind: str
    name: str
    owner: str
    held: bool
    may_grant: bool
    statement: str
    taking: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """One of the sandboxes' functions; `definer`: it works with its owner's rights, not its caller's."""

    name: str
    owner: str
    definer: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """Who asks, which role the deployed system works as, and what is granted to both and to the functions' owners."""

    role: Role
    deployed: str
    rights: tuple[Right, ...]
    functions: tuple[Function, ...]

    @property
    def creator(self) -> str:
        """The role that sandboxes are created as: the deployed system's, or the asking one where there is no such role."""
        return self.deployed if self.role.deployed_exists else self.role.name

    def lacking(self, role: str) -> tuple[Right, ...]:
        """Return what a role lacks to create sandboxes; what a function does with its owner's rights, the owner needs."""
        needs: dict[str, tuple[str, ...]] = {role: ("schema", "function", "table", "database")}
        definer = next((each for each in self.functions if each.name == _CREATE and each.definer), None)
        if definer and definer.owner != role:
            needs = {role: ("schema", "function", "table"), definer.owner: ("database",)}
        return tuple(
            right for right in self.rights if right.kind in needs.get(right.role, ()) and not right.held
        )


def read_rights(snapshot: SqlSnapshot, *, deployed: str) -> Rights:
    """Return the rights of the asking role and of the role `deployed`, which need not exist."""
    functions, tables = migration.names("function"), migration.names("table")
    return Rights(
        role=snapshot.rows("read/rights/role", Role, role=deployed)[0],
        deployed=deployed,
        rights=tuple(
            snapshot.rows("read/rights/rights", Right, role=deployed, functions=functions, tables=tables)
        ),
        functions=tuple(snapshot.rows("read/rights/functions", Function, functions=functions)),
    )
