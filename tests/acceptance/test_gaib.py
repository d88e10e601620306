"""gaib as a program, on real servers: at a terminal, in a pipe, with servers that are down, on the deployed rows."""

import json
import re
import socket
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest

from sandbox.adapters.nats import Nats
from sandbox.model import Sandbox
from sandbox.streams import ensure, expected_consumers, expected_streams
from tests.acceptance.developer import Developer
from tests.acceptance.engineer import Answer
from tests.acceptance.program import ROOT, Program
from tests.integration.world import World, open_world

GUILD = "123456789012345678"
NAME = "my-sandbox"
DEAD_DATABASE = "postgresql://chani:sietch-tabr@127.0.0.1:1/arrakis"
DEAD_REDIS = "redis://:sietch-tabr@127.0.0.1:1/0"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with open_world(tmp_path_factory.mktemp("lab") / "home") as world:
        ensure(Nats(world.env["NATS_URL"]), [*expected_streams(), *expected_consumers()])
        yield world


@pytest.fixture
def world(opened: World) -> World:
    """Servers with no sandbox on them."""
    opened.wipe()
    return opened


@pytest.fixture(scope="module")
def chani(opened: World, tmp_path_factory: pytest.TempPathFactory) -> Developer:
    servers = {name: opened.env[name] for name in ("DATABASE_URL", "REDIS_URL", "NATS_URL")}
    return Developer.at(tmp_path_factory.mktemp("chani"), servers)


def mine(world: World, *guilds: str) -> Sandbox:
    return world.make(NAME, owner="chani", guilds=guilds)


# --- the page's commands, as they are printed there


def page_commands() -> list[str]:
    page = (ROOT / "docs" / "quick-reference.md").read_text(encoding="utf-8")
    section = page.partition("## Quick Reference\n")[2]
    block = section.partition("```bash\n")[2].partition("```")[0]
    return [line for line in block.splitlines() if line and not line.startswith("#")]


def made(world: World) -> tuple[datetime, datetime]:
    found = world.sql.execute(
        "SELECT created_at, expires_at FROM sandboxes WHERE name = %s AND status = 'running'", (NAME,)
    ).fetchone()
    assert found, "it is not there"
    created, expires = found
    assert isinstance(created, datetime)
    assert isinstance(expires, datetime)
    return created, expires


def lives_for(hours: int) -> Callable[[World, str], bool]:
    def check(world: World, text: str) -> bool:
        created, expires = made(world)
        return f"created {NAME}" in text and expires - created == timedelta(hours=hours)

    return check


def says(*words: str) -> Callable[[World, str], bool]:
    return lambda _, text: all(word in text for word in words)


def schema_of(world: World) -> str:
    return str(world.one("SELECT schema_name FROM sandboxes WHERE name = %s", NAME))


EXPECTED: dict[str, Callable[[World, str], bool]] = {
    "gaib sandbox list": says(NAME, "running", "23 h "),
    "gaib sandbox create my-sandbox": lives_for(24),
    "gaib sandbox create my-sandbox --ttl 48h": lives_for(48),
    "gaib sandbox status my-sandbox": says(f"{NAME}  healthy", "routes", "keys", "events"),
    "gaib sandbox status my-sandbox --watch  # Live updates": says(f"{NAME}  healthy"),
    f"gaib sandbox register-guild my-sandbox {GUILD}": lambda world, _: GUILD in world.mapped(),
    f"gaib sandbox unregister-guild my-sandbox {GUILD}": lambda world, _: GUILD not in world.mapped(),
    "gaib sandbox connect my-sandbox": lambda world, text: (
        f"export SANDBOX_SCHEMA={schema_of(world)};" in text
    ),
    "eval $(gaib sandbox connect my-sandbox)  # Export to shell": (
        lambda world, text: text.endswith(f"\n{schema_of(world)}\n")
    ),
    "gaib sandbox destroy my-sandbox": lambda world, _: world.schemas() == set(),
    "gaib sandbox list --all | wc -l": lambda _, text: text == "2\n",
    "gaib sandbox list --status expired": lambda _, text: "ended-one" in text and NAME not in text,
    "gaib sandbox list --all | grep <schema_suffix>": (
        lambda world, text: (
            text.count("\n") == 1 and text.startswith(f"{NAME}\t") and schema_of(world) in text
        )
    ),
}


def test_the_page_has_the_commands_that_are_tried_here() -> None:
    assert page_commands() == list(EXPECTED)


@pytest.mark.parametrize("printed", page_commands())
def test_every_command_of_the_page_works_as_printed(printed: str, world: World, chani: Developer) -> None:
    if " create " not in printed:
        mine(world, *([] if "register-guild" in printed.split() else [GUILD]))
    if " list " in printed:
        world.write_row("ended-one", "expired", ends=timedelta(hours=-1))
    line = printed.replace("<schema_suffix>", schema_of(world).removeprefix("sandbox_"))
    if line.startswith("eval "):
        line += '\nprintenv SANDBOX_SCHEMA || echo "nothing was set"'
    with chani.terminal(line) as terminal:
        if " destroy " in printed:
            terminal.wait_for(f"Destroy {NAME}? [y/N] ")
            terminal.type("y\n")
        if " --watch" in printed:
            terminal.wait_for("checked")
            terminal.type("\x03")
        code = terminal.end()
    assert code == 0, terminal.text
    assert EXPECTED[printed](world, terminal.text), terminal.text


# --- lists


@pytest.mark.soak
def test_a_line_a_sandbox_whatever_it_is_called(world: World, chani: Developer) -> None:
    made = world.make("plain", owner="chani", guilds=("1", "2"))
    world.make("others", owner="stilgar")
    for number, status in enumerate(("pending", "creating", "running", "expired", "destroying", "destroyed")):
        world.write_row(f"two\nlines\t{number}", status)
    everything = chani.call("sandbox", "list", "--all")
    lines = everything.out.splitlines()
    assert (everything.code, everything.err) == (0, "")
    assert len(lines) == everything.out.count("\n") == 7
    assert {line.count("\t") for line in lines} == {6}
    fields = next(line for line in lines if line.startswith("plain")).split("\t")
    assert fields[1:3] + fields[4:] == ["running", "chani", "2", str(made.id), f"sandbox_{made.id}"]
    assert chani.shell("gaib sandbox list | wc -l").out.strip() == "6"
    assert chani.shell("gaib sandbox list -q -o stilgar").out == "others\n"
    assert chani.shell("gaib sandbox list -q -a -s destroyed").out == "two\\nlines\\t5\n"
    assert chani.shell("gaib sandbox list -q -o nobody").out == ""


def test_a_list_as_a_document_has_the_deployed_shape(world: World, chani: Developer) -> None:
    sandbox = mine(world, GUILD)
    document = chani.call("sandbox", "list", "--json").document
    assert list(document) == ["success", "count", "sandboxes"]
    assert (document["success"], document["count"]) == (True, 1)
    [only] = document["sandboxes"]
    assert datetime.fromisoformat(only.pop("createdAt")) == sandbox.created_at
    assert datetime.fromisoformat(only.pop("expiresAt")) == sandbox.expires_at
    assert only == {
        "id": str(sandbox.id),
        "name": NAME,
        "owner": "chani",
        "status": "running",
        "schemaName": f"sandbox_{sandbox.id}",
        "schemas": [f"sandbox_{sandbox.id}"],
        "guildIds": [GUILD],
    }


def test_a_reader_that_has_seen_enough_is_no_error(world: World, chani: Developer) -> None:
    world.sql.execute(
        "INSERT INTO sandboxes (name, owner, status, schema_name, expires_at)"
        " SELECT 'many-' || n, 'chani', 'running', 'many_' || n, now() FROM generate_series(1, 3000) AS n"
    )
    answer = chani.shell("gaib sandbox list --all | head -1 | wc -l")
    assert (answer.out.strip(), answer.err) == ("1", "")


@pytest.mark.soak
def test_what_a_terminal_shows_fits_in_it(world: World, chani: Developer) -> None:
    world.make("a" * 64, owner="b" * 64, guilds=tuple(str(10**17 + n) for n in range(12)))
    world.write_row("字" * 40, "expired", ends=timedelta(hours=-1))
    for line in ("gaib sandbox list --all", f"gaib sandbox status {'a' * 64}"):
        with chani.terminal(line) as terminal:
            assert terminal.end() == 0
        shown = terminal.text.splitlines()
        assert len(shown) > 3
        assert max(len(each) + sum(char == "字" for char in each) for each in shown) <= 80, terminal.text
        assert "\x1b[3" in terminal.raw


@pytest.mark.soak
def test_no_color_means_none(world: World, chani: Developer) -> None:
    mine(world)
    for line in ("gaib sandbox list", f"gaib sandbox status {NAME}"):
        with chani.but(NO_COLOR="").terminal(line) as terminal:
            assert terminal.end() == 0
        assert NAME in terminal.raw
        assert "\x1b" not in terminal.raw


def test_an_empty_list_says_how_to_begin(world: World, chani: Developer) -> None:
    with chani.terminal("gaib sandbox list") as terminal:
        assert terminal.end() == 0
    assert "no sandboxes" in terminal.text
    assert "gaib sandbox create my-sandbox" in terminal.text


# --- every command, its short name, its forms

STEPS = (
    ("new", "create", (NAME, "-t", "2h", "-g", GUILD)),
    ("ls", "list", ()),
    ("env", "connect", (NAME,)),
    ("link", "register-guild", (NAME, "7")),
    ("unlink", "unregister-guild", (NAME, "7")),
    ("status", "status", (NAME,)),
    ("extend", "extend", (NAME, "24h")),
    ("rm", "destroy", (NAME, "-y")),
)


@pytest.mark.soak
def test_every_short_name_is_its_command_and_answers_with_one_document(
    world: World, chani: Developer
) -> None:
    for short, _, args in STEPS:
        answer = chani.call("sandbox", short, *args, "--json")
        assert answer.code == 0, answer.said
        assert answer.document["success"] is True
        assert answer.err == ""
    assert world.one("SELECT status::text FROM sandboxes WHERE name = %s", NAME) == "destroyed"
    events = world.sql.execute("SELECT event_type FROM sandbox_audit_log ORDER BY created_at").fetchall()
    assert [event for (event,) in events] == [
        "sandbox_created",
        "guild_registered",
        "guild_registered",
        "guild_unregistered",
        "ttl_extended",
        "sandbox_destroying",
        "sandbox_destroyed",
    ]


@pytest.mark.soak
def test_quiet_prints_as_little_as_possible(world: World, chani: Developer) -> None:
    said = {name: chani.call("sandbox", name, *args, "-q") for _, name, args in STEPS}
    assert {(answer.code, answer.err) for answer in said.values()} == {(0, "")}
    lines = said.pop("connect").out.splitlines()
    assert len(lines) == 5
    assert all(line.startswith("export SANDBOX_") for line in lines)
    assert {name: answer.out for name, answer in said.items()} == {
        "create": f"{NAME}\n",
        "list": f"{NAME}\n",
        "status": f"{NAME}: healthy\n",
        "register-guild": "",
        "unregister-guild": "",
        "extend": "",
        "destroy": "",
    }


@pytest.mark.soak
def test_repeating_changes_nothing_and_says_so(world: World, chani: Developer) -> None:
    mine(world)
    said = [
        chani.call("sandbox", *args)
        for args in (
            ("link", NAME, "7"),
            ("link", NAME, "7"),
            ("unlink", NAME, "7"),
            ("unlink", NAME, "7"),
            ("extend", NAME, "24h"),
            ("extend", NAME, "7d"),
            ("extend", NAME, "1h"),
        )
    ]
    assert [answer.code for answer in said] == [0, 0, 0, 0, 0, 0, 1]
    assert [answer.out.count("\n") for answer in said] == [1, 1, 1, 1, 1, 1, 0]
    assert f"guild 7 is mapped to {NAME} now" in said[0].out
    assert f"guild 7 is mapped to {NAME} already" in said[1].out
    assert f"guild 7 is mapped to {NAME} no longer" in said[2].out
    assert f"guild 7 was not mapped to {NAME}" in said[3].out
    assert "it may live no longer than that" not in said[4].out
    assert "it may live no longer than that" in said[5].out
    assert "SANDBOX_002" in said[6].err


def test_a_sandbox_without_a_name_is_named_after_its_owner(world: World, chani: Developer) -> None:
    answer = chani.call("sandbox", "create")
    assert re.search(r"^created sandbox-chani-\w{6}$", answer.out, re.MULTILINE)
    assert "  next: gaib sandbox status sandbox-chani-" in answer.out


# --- destroying


def test_nothing_is_destroyed_without_anybody_to_ask(world: World, chani: Developer) -> None:
    sandbox = mine(world, GUILD)
    before = world.key_names()
    answer = chani.call("sandbox", "destroy", NAME)
    assert (answer.code, answer.out) == (4, "")
    assert "--yes" in answer.err
    for typed in ("n\n", "\n", "\x04"):
        with chani.terminal(f"gaib sandbox destroy {NAME}") as terminal:
            terminal.wait_for("[y/N] ")
            terminal.type(typed)
            assert terminal.end() == 4
    with chani.terminal(f"gaib sandbox destroy {NAME}") as terminal:
        terminal.wait_for("[y/N] ")
        terminal.type("\x03")
        assert terminal.end() == 130
    assert "Traceback" not in terminal.text
    assert chani.call("sandbox", "destroy", NAME, "-n").code == 0
    assert world.status(sandbox.id) == "running"
    assert world.schemas() == {f"sandbox_{sandbox.id}"}
    assert world.key_names() == before
    assert world.mapped() == {GUILD: sandbox.id}


def test_a_preview_is_what_goes_and_names_another_owner(world: World, chani: Developer) -> None:
    sandbox = world.make(NAME, owner="stilgar", guilds=(GUILD,))
    seen = chani.call("sandbox", "destroy", NAME, "--dry-run", "--json").document
    assert (seen["schemas"], seen["keys"], seen["guildIds"]) == ([f"sandbox_{sandbox.id}"], 5, [GUILD])
    assert "stilgar's, not yours" in chani.call("sandbox", "destroy", NAME, "--dry-run").out
    gone = chani.call("sandbox", "destroy", NAME, "--yes", "--json").document
    assert {name: gone[name] for name in ("schemas", "keys", "guildIds")} == {
        name: seen[name] for name in ("schemas", "keys", "guildIds")
    }
    assert world.key_names() == set()


def test_destroying_again_finishes_what_was_left(world: World, chani: Developer) -> None:
    sandbox = mine(world, GUILD)
    assert chani.call("sandbox", "destroy", NAME, "--yes").code == 0
    again = chani.call("sandbox", "destroy", NAME, "--yes")
    assert (again.code, "nothing was left of it" in again.out) == (0, True)
    assert "nothing is left of it" in chani.call("sandbox", "destroy", NAME, "--dry-run").out
    world.redis.set(f"sandbox:{sandbox.id}:late", "1")
    rest = chani.call("sandbox", "destroy", NAME, "--yes")
    assert (rest.code, "what was left of it is gone now" in rest.out) == (0, True)
    assert world.key_names() == set()


# --- servers that are down


@pytest.mark.parametrize(
    "args",
    [
        ("list",),
        ("create", NAME),
        ("status", NAME),
        ("status", NAME, "--watch"),
        ("register-guild", NAME, GUILD),
        ("unregister-guild", NAME, GUILD),
        ("connect", NAME),
        ("destroy", NAME, "--yes"),
        ("destroy", NAME, "--dry-run"),
        ("extend", NAME, "24h"),
    ],
)
def test_a_dead_database_is_one_line(args: tuple[str, ...], chani: Developer) -> None:
    answer = chani.but(DATABASE_URL=DEAD_DATABASE).call("sandbox", *args)
    assert answer.code == 3, answer.said
    assert answer.out == ""
    assert [line.partition(":")[0] for line in answer.err.splitlines()] == ["gaib", "  next"]
    assert "sietch-tabr" not in answer.said


@pytest.mark.soak
def test_a_dead_redis_leaves_changes_standing_and_says_so(world: World, chani: Developer) -> None:
    without = chani.but(REDIS_URL=DEAD_REDIS)
    create = without.call("sandbox", "create", NAME, "-g", GUILD, "--json")
    assert create.code == 0, create.said
    assert create.document["sandbox"]["guildIds"] == [GUILD]
    assert "cached routes may be wrong for a minute" in create.document["warning"]
    assert create.err.startswith("gaib: warning: ")
    assert create.err.count("\n") == 1
    preview = without.call("sandbox", "destroy", NAME, "--dry-run")
    assert (preview.code, "cannot tell: Redis" in preview.out) == (3, True)
    destroy = without.call("sandbox", "destroy", NAME, "--yes", "--json")
    assert destroy.code == 5, destroy.said
    assert destroy.document["success"] is False
    assert destroy.document["error"]["code"] == "UNREACHABLE"
    assert "left to the clean-up job" in destroy.err
    assert world.schemas() == set()
    assert "sietch-tabr" not in create.said + preview.said + destroy.said


def test_what_cannot_be_told_is_unknown_and_not_healthy(world: World, chani: Developer) -> None:
    mine(world, GUILD)
    without = chani.but(REDIS_URL=DEAD_REDIS, NATS_URL=None).call("sandbox", "status", NAME, "--json")
    assert without.code == 3, without.said
    levels = {check["name"]: check["level"] for check in without.document["checks"]}
    assert levels == {
        "status": "healthy",
        "schema": "healthy",
        "routes": "unknown",
        "keys": "unknown",
        "events": "unknown",
    }
    assert any("NATS_URL is not set" in check["message"] for check in without.document["checks"])


def test_a_sandbox_that_is_not_well_ends_with_two(world: World, chani: Developer) -> None:
    world.write_row(NAME, "running")
    answer = chani.call("sandbox", "status", NAME)
    assert answer.code == 2
    assert answer.out.splitlines()[0] == f"{NAME}: unhealthy"


# --- watching


def test_a_watch_draws_over_itself_until_ctrl_c(world: World, chani: Developer) -> None:
    mine(world)
    with chani.terminal(f"gaib sandbox status {NAME} -w -i 0.2; echo ended with $?") as terminal:
        terminal.wait_for(lambda raw: raw.count("checked") >= 3)
        terminal.type("\x03")
        assert terminal.end() == 0
    assert "Traceback" not in terminal.text
    assert terminal.text.endswith("ended with 0\n")
    first, *later = terminal.raw.partition("ended with")[0].split(f"\x1b[1m{NAME}")[1:]
    assert len(later) >= 2
    drawn = first.partition("\x1b[2K")[0].count("\n")
    assert drawn > 5
    assert first.count("\x1b[1A") == drawn
    assert terminal.raw.count("\x1b[?25l") == terminal.raw.count("\x1b[?25h") == 1


def test_a_terminal_that_cannot_be_drawn_over_gets_blocks(world: World, chani: Developer) -> None:
    mine(world)
    with chani.but(TERM="dumb").terminal(f"gaib sandbox status {NAME} -w -i 0.1") as terminal:
        terminal.wait_for(lambda raw: raw.count(f"{NAME}: healthy") >= 2)
        terminal.type("\x03")
        assert terminal.end() == 0
    assert "\x1b" not in terminal.raw


@pytest.mark.parametrize(
    ("server", "url"),
    [
        ("DATABASE_URL", "postgresql://x@127.0.0.1:{}/x"),
        ("REDIS_URL", "redis://127.0.0.1:{}/0"),
        ("NATS_URL", "nats://127.0.0.1:{}"),
    ],
)
def test_ctrl_c_ends_a_watch_at_once_while_it_waits_for_a_server(
    server: str, url: str, world: World, chani: Developer
) -> None:
    mine(world, GUILD)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(20)
        waiting = chani.but(**{server: url.format(silent.getsockname()[1])})
        with waiting.terminal(f"gaib sandbox status {NAME} --watch") as terminal:
            connection, _ = silent.accept()
            with connection:
                terminal.type("\x03")
                assert terminal.end(seconds=3) == 0
    assert terminal.text.replace("^C", "").strip() == ""
    assert terminal.raw.count("\x1b[?25l") == terminal.raw.count("\x1b[?25h") == 1


def test_a_watch_that_is_ended_gives_the_cursor_back(world: World, chani: Developer) -> None:
    mine(world)
    with chani.terminal(f"exec gaib sandbox status {NAME} --watch") as terminal:
        terminal.wait_for("checked")
        terminal.terminate()
        assert terminal.end() == 143
    assert "Traceback" not in terminal.text
    assert terminal.raw.count("\x1b[?25l") == terminal.raw.count("\x1b[?25h") == 1


def documents(process: Program) -> Iterator[dict[str, object]]:
    assert process.stdout
    for line in process.stdout:
        yield json.loads(line)


def test_a_watch_outlives_a_server_and_ends_with_the_sandbox(world: World, chani: Developer) -> None:
    mine(world)
    role = str(world.one("SELECT current_user"))
    with chani.piped("sandbox", "status", NAME, "--watch", "-i", "0.2", "--json") as process:
        seen = documents(process)
        assert next(seen)["health"] == "healthy"
        world.sql.execute(f'ALTER ROLE "{role}" NOLOGIN'.encode())
        try:
            away = next(each for each in seen if each["health"] != "healthy")
        finally:
            world.sql.execute(f'ALTER ROLE "{role}" LOGIN'.encode())
        assert away["health"] == "unknown"
        assert next(each for each in seen if each["health"] != "unknown")["health"] == "healthy"
        assert chani.call("sandbox", "destroy", NAME, "--yes").code == 0
        *_, last = seen
        assert "sandbox" in last
        assert process.wait(20) == 0
        assert process.stderr
        assert f"{NAME} is gone" in process.stderr.read()


def test_a_watch_in_a_pipe_prints_blocks_without_control_codes(world: World, chani: Developer) -> None:
    mine(world)
    answer = chani.shell(f"gaib sandbox status {NAME} --watch -i 0.1 | head -25")
    assert answer.err == ""
    assert answer.out.replace("\n", "").isprintable()
    assert answer.out.count(f"{NAME}: healthy\n") >= 2


# --- rows as the deployed system writes them


@pytest.fixture
def deployed(world: World) -> UUID:
    """A row with the short name in its column and JSON in a string, and the schema that really exists."""
    sandbox = world.write_row("from-before", "running")
    world.sql.execute("SELECT create_sandbox_schema(%s)", (str(sandbox),))
    return sandbox


@pytest.fixture
def half_made(world: World) -> UUID:
    """A row that the deployed system left in the middle of creation."""
    sandbox = world.write_row("half-made", "creating")
    world.sql.execute("UPDATE sandboxes SET schema_name = %s WHERE id = %s", (f"pending_{uuid4()}", sandbox))
    return sandbox


@pytest.mark.soak
def test_a_deployed_row_works_in_every_command(world: World, chani: Developer, deployed: UUID) -> None:
    schema, name = f"sandbox_{deployed}", "from-before"
    assert chani.shell(f"gaib sandbox list --all | grep -c {deployed.hex[:8]}").out == "1\n"
    [listed] = chani.call("sandbox", "list", "--json").document["sandboxes"]
    assert (listed["schemaName"], listed["schemas"]) == (f"sandbox_{deployed.hex[:8]}", [schema])
    connected = chani.shell(
        f"eval $(gaib sandbox connect {name} -q); echo $SANDBOX_SCHEMA; echo $SANDBOX_REDIS_PREFIX"
    )
    assert connected.out.splitlines() == [schema, f"sandbox:{deployed}:"]
    for args in (("link", name, "7"), ("unlink", name, "7"), ("extend", name, "24h"), ("status", name)):
        assert chani.call("sandbox", *args).code == 0
    world.redis.set(f"sandbox:{deployed.hex[:8]}:old", "1")
    gone = chani.call("sandbox", "destroy", name, "--yes", "--json").document
    assert (gone["schemas"], gone["keys"]) == ([schema], 1)
    assert world.schemas() == set()
    assert world.key_names() == set()


def test_what_production_would_lose_is_named_and_nothing_is_destroyed(world: World, chani: Developer) -> None:
    mine(world)
    world.sql.execute(f'CREATE VIEW public.watching AS SELECT id FROM "{schema_of(world)}".profiles'.encode())
    looked, tried = (chani.call("sandbox", "destroy", NAME, option) for option in ("--dry-run", "--yes"))
    world.sql.execute("DROP VIEW public.watching")
    assert (looked.code, tried.code) == (4, 4)
    assert "It cannot go: view watching would be taken along." in looked.out
    assert "would take along view watching" in tried.err
    assert world.one("SELECT status::text FROM sandboxes WHERE name = %s", NAME) == "running"


@pytest.mark.soak
def test_a_half_made_row_is_answered_in_every_command(
    world: World, chani: Developer, half_made: UUID
) -> None:
    name = "half-made"
    expected = {
        ("list",): 0,
        ("status", name): 2,
        ("connect", name): 1,
        ("link", name, "7"): 1,
        ("unlink", name, "7"): 0,
        ("extend", name, "24h"): 1,
        ("destroy", name, "-n"): 0,
        ("destroy", name, "-y"): 0,
    }
    said = {args: chani.call("sandbox", *args) for args in expected}
    assert {args: answer.code for args, answer in said.items()} == expected
    assert all("unexpected" not in answer.said for answer in said.values())
    assert said["list",].out.endswith("\t-\n")  # what its row names does not exist
    assert (said["connect", name].out, "SANDBOX_005" in said["connect", name].err) == ("", True)
    assert world.status(half_made) == "destroyed"


def test_what_is_meant_for_a_person_never_reaches_eval(world: World, chani: Developer) -> None:
    mine(world)
    answer = chani.shell(f"gaib sandbox connect {NAME} 2>&-")
    assert (answer.code, answer.out.count("\n")) == (0, 5)
    assert all(line.startswith("export SANDBOX_") for line in answer.out.splitlines())
    for failing in ("gaib sandbox connect nobody 2>&-", f"DATABASE_URL= gaib sandbox connect {NAME} 2>&-"):
        refused = chani.shell(failing)
        assert (refused.code, refused.out) == (1, "")


@pytest.mark.soak
def test_any_name_that_is_in_the_table_arrives_in_the_shell(world: World, chani: Developer) -> None:
    for number, name in enumerate(("$(touch pwned) *", "a  'b' \"c\"", "-n é`x`")):
        sandbox = world.write_row(name, "running")
        world.sql.execute("SELECT create_sandbox_schema(%s)", (str(sandbox),))
        for line in (
            'eval $(gaib sandbox connect -q -- "$1"); printf "%s|" "$SANDBOX_NAME" "$SANDBOX_ID"',
            'eval "$(gaib sandbox connect -q -- "$1")"; printf "%s|" "$SANDBOX_NAME" "$SANDBOX_ID"',
        ):
            answer = chani.run("bash" if number % 2 else "dash", "-c", line, "sh", name)
            assert (answer.out, answer.err) == (f"{name}|{sandbox}|", "")
    assert not (chani.home / "pwned").exists()


# --- completion


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("gaib sandbox cr", {"create"}),
        ("gaib sandbox list --status des", {"destroying", "destroyed"}),
        ("gaib sandbox status from", {"from-before"}),
        ("gaib sandbox rm half", {"half-made"}),
        ("gaib sandbox extend nope", set()),
    ],
)
@pytest.mark.usefixtures("deployed", "half_made")
def test_bash_completes_commands_statuses_and_names(
    words: str, offered: set[str], world: World, chani: Developer
) -> None:
    world.write_row("from-$(touch pwned)", "running")
    typed = words.split()
    answer = chani.run(
        "bash",
        "-c",
        'eval "$(gaib completion bash)"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1));'
        ' _gaib_completion gaib; printf "%s\\n" "${COMPREPLY[@]}"',
        "bash",
        *typed,
    )
    assert answer.err == ""
    assert set(answer.out.split()) == offered
    assert not (chani.home / "pwned").exists()


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell_name: str, chani: Developer) -> None:
    answer: Answer = chani.but(DATABASE_URL=None).call("completion", shell_name)
    assert (answer.code, answer.err) == (0, "")
    assert f"_GAIB_COMPLETE={shell_name}_complete" in answer.out


def test_completing_without_a_database_is_silent(chani: Developer) -> None:
    asking = chani.but(
        DATABASE_URL=DEAD_DATABASE,
        _GAIB_COMPLETE="bash_complete",
        COMP_WORDS="gaib sandbox rm x",
        COMP_CWORD="3",
    )
    answer = asking.call()
    assert (answer.code, answer.said.strip()) == (0, "")
