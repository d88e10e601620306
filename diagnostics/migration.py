"""What the control tables' migration makes, read from its own text, and what of it is missing or otherwise in a database.

The one place that says what is expected is the migration. Its text and the catalog's are brought to the same spelling; what is
there besides is nobody's concern here.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from sandbox.ports import SqlSnapshot
from sql import load

__all__ = [
    "MIGRATION",
    "SEE_OBJECTS",
    "Fault",
    "Item",
    "Part",
    "What",
    "faults",
    "names",
    "parts",
    "read_items",
]

MIGRATION = "migrations/0001_control_tables"
SEE_OBJECTS = (
    "psql -c '\\dT+ public.sandbox*' -c '\\d public.sandbox*' -c '\\df+ public.*sandbox*'  # any role"
)

_TYPE = r"CREATE TYPE public\.(?P<type>\w+) AS ENUM\s+\((?P<labels>[^)]*)\);"
_TABLE = r"CREATE TABLE IF NOT EXISTS public\.(?P<table>\w+) \(\n(?P<lines>.*?)\n\);"
_INDEX = r"CREATE INDEX IF NOT EXISTS (?P<index>\w+)\s+ON public\.(?P<on>\w+) (?P<of>[^;]*);"
_FUNCTION = (
    r"CREATE OR REPLACE FUNCTION public\.(?P<function>\w+)\((?P<arguments>[^)]*)\)\s+RETURNS (?P<result>[^;]*?)\s+"
    r"LANGUAGE (?P<language>\w+)[ A-Z]* AS \$function\$(?P<body>.*?)\$function\$;"
)
_PART = re.compile("|".join((_TYPE, _TABLE, _INDEX, _FUNCTION)), re.DOTALL)
_COLUMN = re.compile(
    r"(?P<name>\w+)\s+(?P<type>\S+)(?P<key> PRIMARY KEY)?(?P<required> NOT NULL)?"
    r"(?: DEFAULT (?P<default>\S+))?(?: (?P<references>REFERENCES .*))?"
)
_SPELLINGS = (
    (r"\bpublic\.", ""),
    (r"character varying", "varchar"),
    (r"timestamp with time zone", "timestamptz"),
    (r"::\w+", ""),
    (r"USING btree ", ""),
    (r"\ACREATE (UNIQUE )?INDEX (?:IF NOT EXISTS )?\S+ ON \S+ ", r"\1"),
    (r" WHERE \((.*)\)\Z", r" WHERE \1"),
    (r"\s+\(", "("),
    (r"\s+", " "),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing that can be there or not, such as a column, in the spelling that the migration and the catalog share."""

    kind: str
    name: str
    text: str
    valid: bool = True

    def __post_init__(self) -> None:
        """Bring the text to the shared spelling; a function's is its very body."""
        if self.kind != "function":
            text = self.text
            for pattern, plain in _SPELLINGS:
                text = re.sub(pattern, plain, text)
            object.__setattr__(self, "text", text.strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One object of the migration: the statement that makes it, and what is there once it was made."""

    kind: str
    name: str
    statement: str
    items: tuple[Item, ...]


class What(StrEnum):
    """What is wrong with an object."""

    MISSING = "missing"
    DIFFERENT = "different"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is not as the migration makes it: `told` says what exactly. `part` is set where all of an object is missing."""

    kind: str
    name: str
    what: What
    told: str
    part: Part | None = None

    @property
    def fatal(self) -> bool:
        """Whether no sandbox can be created so: what is looked up, filled or called is not there."""
        return self.what is What.MISSING and self.kind in ("type", "table", "column", "function")


@cache
def parts() -> tuple[Part, ...]:
    """Return the objects that the migration makes, in its own order."""
    return tuple(_part(found) for found in _PART.finditer(load(MIGRATION)))


def names(kind: str) -> list[str]:
    """Return the names of the migration's types, tables, indexes or functions, without arguments."""
    return [part.name.partition("(")[0] for part in parts() if part.kind == kind]


def read_items(snapshot: SqlSnapshot) -> tuple[Item, ...]:
    """Return what the database has of the migration's objects."""
    wanted = {f"{kind}s": names(kind) for kind in ("type", "table", "function")}
    return tuple(snapshot.rows("read/rights/objects", Item, **wanted))


def faults(found: Collection[Item]) -> tuple[Fault, ...]:
    """Return what is missing or otherwise, the migration's first. An index or constraint under another name will do."""
    return tuple(fault for part in parts() for fault in _faults(part, found))


def _faults(part: Part, found: Collection[Item]) -> list[Fault]:
    there = {(item.kind, item.name) for item in found}
    if part.kind != "index" and not any((item.kind, item.name) in there for item in part.items):
        return [Fault(kind=part.kind, name=part.name, what=What.MISSING, told="it does not exist", part=part)]
    return [fault for item in part.items if (fault := _fault(part, item, found))]


def _fault(part: Part, item: Item, found: Collection[Item]) -> Fault | None:
    """What is wrong with one item, by what else the database has under its name."""
    alike = [each for each in found if (each.kind, each.name) == (item.kind, item.name)]
    same = [each for each in alike if each.text == item.text]
    if any(each.valid for each in same):
        return None
    name = part.name if part.kind in ("index", "function", "type") else item.name
    if same:
        return Fault(kind=item.kind, name=name, what=What.INVALID, told=f"{item.text} is not valid")
    if item.kind in ("constraint", "index") or not alike:
        whole = part if part.kind == "index" else None
        return Fault(kind=item.kind, name=name, what=What.MISSING, told=f"no {item.text}", part=whole)
    told = "its text is not the migration's"
    if item.kind != "function":
        told = f"it is {alike[0].text}, and should be {item.text}"
    return Fault(kind=item.kind, name=name, what=What.DIFFERENT, told=told)


def _part(found: re.Match[str]) -> Part:
    if name := found["type"]:
        labels = found["labels"].replace("'", "")
        return _made("type", name, found, [Item(kind="type", name=name, text=labels)])
    if name := found["table"]:
        items = [item for line in found["lines"].splitlines() for item in _items(name, line.strip(" ,"))]
        return _made("table", name, found, items)
    if name := found["index"]:
        return _made("index", name, found, [Item(kind="index", name=found["on"], text=found["of"])])
    name = f"{found['function']}({found['arguments']})"
    text = f"{found['result'].replace('TABLE (', 'TABLE(')} {found['language']} {found['body']}"
    return _made("function", name, found, [Item(kind="function", name=name, text=text)])


def _made(kind: str, name: str, found: re.Match[str], items: list[Item]) -> Part:
    return Part(kind=kind, name=name, statement=found[0], items=tuple(items))


def _items(table: str, line: str) -> list[Item]:
    """Return what one line of a table's definition makes: a column with its constraints, or a constraint."""
    if line.startswith("CONSTRAINT "):
        return [Item(kind="constraint", name=table, text=line.split(maxsplit=2)[2])]
    column = _COLUMN.fullmatch(line)
    assert column is not None, line  # the migration is ours, and a test reads all of it
    name, text = column["name"], column["type"]
    text += " NOT NULL" if column["required"] or column["key"] else ""
    text += f" DEFAULT {column['default']}" if column["default"] else ""
    items = [Item(kind="column", name=f"{table}.{name}", text=text)]
    if column["key"]:
        items.append(Item(kind="constraint", name=table, text=f"PRIMARY KEY ({name})"))
    if column["references"]:
        items.append(Item(kind="constraint", name=table, text=f"FOREIGN KEY ({name}) {column['references']}"))
    return items
