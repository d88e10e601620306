"""A cluster is one keyspace: seen as a whole or not at all, and changed so that nothing is lost."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import timedelta

import pytest
from redis.crc import key_slot

from sandbox import keyspace, registry, removal
from sandbox.adapters import redis_cluster, redis_node
from sandbox.adapters.redis import Redis
from sandbox.errors import ArrakisError, Busy, Denied, Unreachable
from sandbox.keyspace import Parked, Survey
from sandbox.model import Sandbox
from sandbox.naming import parked_key
from sandbox.removal import Destroyed, Terms
from tests.integration.rediscluster import Nodes, cluster
from tests.integration.world import NOW, World
from tests.waiting import eventually

STAMP = "20250102030405"
FAMILY, OTHER, LATER = "0123456789ab", "fedcba987654", "00ff00ff00ff"
LIFETIME = timedelta(hours=2)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


@pytest.fixture
def nodes(running: Nodes) -> Nodes:
    """Return the cluster, all well and empty."""
    running.settle()
    return running


@pytest.fixture
def keys(nodes: Nodes) -> Redis:
    return Redis(nodes.primaries[0].url, timeout=5)


def names(family: str = FAMILY, count: int = 60) -> list[bytes]:
    return [f"sandbox:{family}:session:{number}".encode() for number in range(count)]


def fill(keys: Redis, found: list[bytes]) -> list[bytes]:
    """Write keys, every second one with an end."""
    for number, key in enumerate(found):
        keys.put(key, key[-7:], lifetime=LIFETIME if number % 2 else None)
    return found


def fill_much(nodes: Nodes, count: int) -> list[bytes]:
    """Write so many keys that a node's come in several batches."""
    found = names(count=count)
    for member in nodes.primaries:
        with member.client.pipeline(transaction=False) as pipe:
            for key in found:
                pipe.set(key, "spice")
            pipe.execute(raise_on_error=False)  # the others have the keys that this one refuses
    return found


def free() -> AbstractContextManager[object]:
    return nullcontext()


def scanned(keys: Redis) -> Counter[bytes]:
    return Counter(key for batch in keys.scan("*") for key in batch)


# ---- one keyspace


def test_any_node_leads_to_all_keys(nodes: Nodes) -> None:
    everything = fill_much(nodes, 6000)
    for member in (*nodes.primaries, nodes.replica):
        assert scanned(Redis(member.url)) == Counter(everything)


def test_each_key_is_asked_about_where_it_is(nodes: Nodes, keys: Redis) -> None:
    found = fill(keys, names())
    assert {nodes.of(key).port for key in found} == {each.port for each in nodes.primaries}
    [gone, a_hash] = names(OTHER, 2)
    nodes.of(a_hash).client.hset(a_hash, "a", "1")
    asked = [*found, gone, a_hash]
    assert keys.values(asked) == [*(key[-7:] for key in found), None, None]
    assert keys.lifetimes(asked)[-2:] == [None, float("inf")]
    ends = keys.lifetimes(found)
    assert ends[0] == float("inf")
    assert 7000 < (ends[1] or 0) <= LIFETIME.total_seconds()
    assert [size is None for size in keys.memory(asked)] == [False] * 60 + [True, False]
    assert [idle is None for idle in keys.idle_seconds(asked)] == [False] * 60 + [True, False]
    assert keys.unlink([*found[:40], gone]) == 40
    assert set(nodes.keys()) == {*found[40:], a_hash}


def test_families_are_parked_and_given_back_as_they_were(nodes: Nodes, keys: Redis) -> None:
    fill(keys, [*names(), *names(OTHER), b"sandbox:route:42", b"unrelated"])
    before, parked = nodes.keys(), Parked(stamp=STAMP, token=FAMILY)

    assert keyspace.park(keys, FAMILY, STAMP, hold=free) == 60
    seen = keyspace.survey(keys)
    assert seen == Survey(families={OTHER: 60}, parked={parked: 60}, routes=frozenset({"42"}))
    there = nodes.keys()
    assert {key: end for key, end in before.items() if key in names()} == {
        key.split(b":", 2)[2]: end for key, end in there.items() if key.startswith(b"quarantine:")
    }

    assert keyspace.unpark(keys, parked, hold=free) == 60
    assert nodes.keys() == before
    assert keys.values(names()) == [key[-7:] for key in names()]

    assert keyspace.usage(keys, [FAMILY], sizes=True)[FAMILY].keys == 60
    assert keyspace.park(keys, FAMILY, STAMP, hold=free) == 60
    assert keyspace.delete_parked(keys, parked, hold=free) == 60
    assert keyspace.delete_family(keys, OTHER) == 60
    assert set(nodes.keys()) == {b"sandbox:route:42", b"unrelated"}


def test_names_of_one_slot_are_renamed_by_the_server(nodes: Nodes, keys: Redis) -> None:
    old, new, taken = b"sandbox:{dune}:a", b"quarantine:{dune}:a", b"quarantine:{dune}:b"
    fill(keys, [old, taken])
    for member in nodes.members:
        member.client.config_resetstat()
    assert keys.rename([(old, taken), (old, new), (old, new)]) == [False, True, False]
    assert set(nodes.keys()) == {new, taken}
    assert "cmdstat_restore" not in nodes.of(new).client.info("commandstats")


# ---- parking, killed or disturbed


@contextmanager
def halted(nodes: Nodes) -> Iterator[Redis]:
    """A user who must not delete: a move of theirs ends where a kill could end it, between the copy and the deletion."""
    for member in nodes.members:
        member.client.acl_setuser(
            "duncan", enabled=True, passwords=["+p@ss"], keys=["*"], categories=["+@all"], commands=["-eval"]
        )
    yield Redis(nodes.primaries[0].url.replace("//", "//duncan:p%40ss@"), timeout=5)
    for member in nodes.members:
        member.client.acl_deluser("duncan")


def of_every_kind(nodes: Nodes) -> list[bytes]:
    """Write keys of each kind, large ones and ones whose table is larger than they need; return those that move."""
    key = names()
    nodes.of(key[0]).client.set(key[0], "spice" * 100, px=LIFETIME)
    nodes.of(key[1]).client.hset(key[1], mapping={f"f{number}": number for number in range(600)})
    nodes.of(key[1]).client.hdel(key[1], *(f"f{number}" for number in range(590)))
    nodes.of(key[2]).client.sadd(key[2], *(f"member {number}" for number in range(2000)))
    nodes.of(key[3]).client.zadd(key[3], {f"member {number}": number / 3 for number in range(500)})
    nodes.of(key[4]).client.rpush(key[4], *range(1000))
    nodes.of(key[5]).client.xadd(key[5], {"worm": "sign"})
    assert all(key_slot(each) != key_slot(parked_key(each, STAMP)) for each in key[:6])
    return key[:6]


def test_a_move_that_was_killed_is_finished_when_repeated(nodes: Nodes, keys: Redis) -> None:
    moving = of_every_kind(nodes)
    before = nodes.keys()
    with halted(nodes) as killed, pytest.raises(Denied, match="a node of the cluster at"):
        keyspace.park(killed, FAMILY, STAMP, hold=free)
    assert nodes.keys() == {**before, **{parked_key(key, STAMP): end for key, end in before.items()}}

    assert keyspace.park(keys, FAMILY, STAMP, hold=free) == len(moving)
    assert nodes.keys() == {parked_key(key, STAMP): end for key, end in before.items()}
    assert keyspace.unpark(keys, Parked(stamp=STAMP, token=FAMILY), hold=free) == len(moving)
    assert nodes.keys() == before
    assert nodes.of(moving[1]).client.hgetall(moving[1]) == {b"f%d" % n: b"%d" % n for n in range(590, 600)}


@pytest.mark.parametrize("other", [{"value": b"another"}, {"value": b"mine", "px": LIFETIME}, {"hash": True}])
def test_a_new_name_that_somebody_else_has_is_left_alone(
    nodes: Nodes, keys: Redis, other: dict[str, object]
) -> None:
    [old], [new] = names(count=1), [parked_key(key, STAMP) for key in names(count=1)]
    keys.put(old, b"mine", lifetime=None)
    client = nodes.of(new).client
    if other.pop("hash", False):
        client.hset(new, "a", "1")
    else:
        client.set(new, **other)  # type: ignore[arg-type]
    there = client.dump(new)
    assert keys.rename([(old, new)]) == [False]
    assert (keys.values([old]), client.dump(new)) == ([b"mine"], there)


def test_a_key_that_is_changed_while_it_is_copied_stays(nodes: Nodes, keys: Redis) -> None:
    """The new name's node holds the copy up until the key is written to."""
    old = next(key for key in names() if nodes.of(key) is not nodes.of(parked_key(key, STAMP)))
    new = parked_key(old, STAMP)
    keys.put(old, b"before", lifetime=None)
    target, renamed = nodes.of(new), list[bool]()
    target.ask("CLIENT", "PAUSE", 20_000, "WRITE")
    thread = threading.Thread(target=lambda: renamed.extend(keys.rename([(old, new)])))
    thread.start()
    try:
        eventually(lambda: target.client.info("clients")["blocked_clients"] == 1)
        nodes.of(old).client.set(old, "after")
    finally:
        target.ask("CLIENT", "UNPAUSE")
        thread.join(10)
    assert renamed == [False]
    assert set(nodes.keys()) == {old}
    assert keys.values([old]) == [b"after"]


# ---- slots that move, primaries that change


def test_while_a_slot_moves_its_keys_are_found_and_all_keys_are_not(nodes: Nodes, keys: Redis) -> None:
    a, b, c, *_ = [f"sandbox:{{dune}}:{number}".encode() for number in range(9)]
    fill(keys, [a, b, c])
    with nodes.moving(key_slot(a)) as target:
        nodes.of(a).client.migrate("127.0.0.1", target.port, a.decode(), 0, 1000)
        assert keys.values([a, b]) == [a[-7:], b[-7:]]
        assert keys.unlink([a]) == 1
        with pytest.raises(Unreachable, match=r"a node .* is moving slots \(\[13") as told:
            keyspace.survey(Redis(target.url))
        assert "--cluster check" in told.value.hint
    assert keys.values([a, b]) == [None, b[-7:]]  # the node that it asks first tells it another one
    assert set(scanned(keys)) == {b, c}


def test_slots_that_nobody_has_make_all_keys_unknown(
    nodes: Nodes, keys: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_cluster, "_PAUSES", (0.0, 0.01))
    [key] = fill(keys, names(count=1))
    owner = nodes.of(key)
    owner.ask("CLUSTER", "DELSLOTS", key_slot(key))
    with pytest.raises(Unreachable, match=f"at {owner.place}, .* says that the cluster is down"):
        keyspace.survey(keys)
    with pytest.raises(Unreachable, match=r"slot not served|cluster is down"):
        keys.values([key])
    owner.client.config_set("cluster-require-full-coverage", "no")
    eventually(lambda: b"cluster_state:ok" in owner.ask("CLUSTER", "INFO"))
    with pytest.raises(Unreachable, match="do not agree on who has which slots: 16,383 of 16,384"):
        keyspace.survey(keys)
    owner.client.config_set("cluster-require-full-coverage", "yes")
    owner.ask("CLUSTER", "ADDSLOTS", key_slot(key))


def test_a_slot_that_moves_during_a_scan_makes_it_fail(nodes: Nodes, keys: Redis) -> None:
    everything = fill_much(nodes, 300)
    moved = next(key for key in everything if nodes.of(key) is nodes.primaries[-1])
    scan = keys.scan("sandbox:*")
    seen = Counter(next(scan))
    with nodes.moving(key_slot(moved)):
        pass
    with pytest.raises(Unreachable, match="changed while its keys were read, at 127") as told:
        seen.update(key for batch in scan for key in batch)
    assert "try again" in told.value.hint
    assert scanned(keys) == Counter(everything)


def test_a_failover_during_a_scan_makes_it_fail_and_the_next_one_whole(nodes: Nodes, keys: Redis) -> None:
    everything = fill_much(nodes, 300)
    following, _ = nodes.replica, nodes.followed
    scan = keys.scan("sandbox:*")
    next(scan)
    following.ask("CLUSTER", "FAILOVER", "TAKEOVER")
    eventually(lambda: len(nodes.primaries) == 3)
    with pytest.raises(Unreachable, match=r"changed while|no primary any more|do not agree"):
        list(scan)
    nodes.agree()
    assert scanned(keys) == Counter(everything)
    assert keys.unlink(everything) == 300


def test_keys_that_a_slot_left_behind_are_not_there(nodes: Nodes, keys: Redis) -> None:
    """Some versions leave keys on a node whose slot went: SCAN shows them, and no client can reach them."""
    [key] = fill(keys, names(count=1))
    wrong = next(each for each in nodes.primaries if each is not nodes.of(key))
    wrong.ask("CLUSTER", "SETSLOT", key_slot(key), "IMPORTING", nodes.of(key).id)
    with wrong.client.pipeline(transaction=False) as pipe:
        pipe.execute_command("ASKING").set(key, "a ghost")  # type: ignore[no-untyped-call]
        pipe.execute()
    wrong.ask("CLUSTER", "SETSLOT", key_slot(key), "STABLE")
    assert key in wrong.client.scan_iter(count=5000)
    assert scanned(keys) == {key: 1}


# ---- nodes that are away


def test_a_node_that_hangs_costs_the_time_out_and_the_whole_answer(nodes: Nodes) -> None:
    keys = Redis(nodes.primaries[0].url, timeout=0.3)
    fill(keys, names())
    away = nodes.primaries[-1]
    near = [key for key in names() if nodes.of(key) is not away]
    with away.stopped():
        for ask in (lambda: keyspace.survey(keys), lambda: keys.values(names()), keys.ping):
            with pytest.raises(Unreachable, match=f"at {away.place}, a node of the cluster at {keys.host}"):
                ask()
        assert keys.values(near) == [key[-7:] for key in near]
    assert keyspace.survey(keys).families == {FAMILY: 60}


def test_a_node_that_is_lost_in_the_midst_of_a_clean_up_leaves_keys_that_the_next_one_finds(
    nodes: Nodes, keys: Redis, world: World
) -> None:
    made = [world.make(f"over-{number}") for number in range(3)]
    fill(keys, [key for row in made for key in names(str(row.id))])
    away, lost = nodes.primaries[-1], ExitStack()

    def lose(row: Sandbox, step: str, _: Mapping[str, object]) -> None:
        if (row.id, step) == (made[-1].id, "condemned"):
            lost.enter_context(away.stopped())

    def clean_up(reached: Redis, terms: Terms) -> list[Destroyed]:
        ids = [row.id for row in made]
        gone = removal.clean_up(world.database, reached, ids, terms, insist=lambda *_: None)
        return [each for each in gone.values() if isinstance(each, Destroyed)]

    with lost:
        cut_off = clean_up(
            Redis(nodes.primaries[0].url, timeout=0.3), Terms(actor="chani", now=NOW, tell=lose)
        )
        for each in cut_off:
            assert isinstance(each.unsettled, Unreachable)
            assert f"at {away.place}, a node of the cluster" in str(each.unsettled)
    assert (len(cut_off), world.schemas()) == (3, set())
    left = set(nodes.keys())
    assert away in [nodes.of(key) for key in left]

    finished = clean_up(keys, Terms(actor="chani", now=NOW))
    assert [each.unsettled for each in finished] == [None] * 3
    assert sum(each.keys for each in finished) == len(left)
    assert nodes.keys() == {}
    with world.database.snapshot() as snapshot:
        assert registry.unfinished(snapshot) == []
    world.wipe()


# ---- the servers


def test_the_slowest_and_the_fullest_primary_is_what_is_told(nodes: Nodes, keys: Redis) -> None:
    fill(keys, names())
    [first, *_, last] = nodes.primaries
    last.client.config_set("maxmemory", last.client.info("memory")["used_memory"] + 100_000_000)
    facts = keys.info()
    assert (facts["cluster_node"], facts["tcp_port"], facts["db0"]["keys"]) == (last.place, last.port, 60)
    last.client.config_set("maxmemory", 0)

    for each in (first, last):
        each.client.config_set("slowlog-log-slower-than", 0)
        each.client.config_set("latency-monitor-threshold", 1)
        each.client.eval("for n = 1, 3000000 do end", 0)
        each.client.config_set("slowlog-log-slower-than", -1)
        each.client.config_set("latency-monitor-threshold", 0)
    told = {each.command for each in keys.slow_commands(50)}
    assert {f"EVAL on {first.place}", f"EVAL on {last.place}"} <= told
    assert len(keys.slow_commands(1)) == 1
    assert {f"command on {first.place}", f"command on {last.place}"} <= {
        each.event for each in keys.latency_events()
    }


def test_a_ping_takes_as_long_as_the_slowest_primary_does(nodes: Nodes, keys: Redis) -> None:
    assert keys.ping() < 1
    nodes.primaries[-1].ask("CLIENT", "PAUSE", 300, "ALL")
    assert keys.ping() > 0.1


# ---- many families in one pass


def test_many_families_are_parked_in_one_pass(nodes: Nodes, keys: Redis) -> None:
    fill(keys, [*names(), *names(OTHER), *names(LATER)])
    held = Counter[str]()

    @contextmanager
    def hold(token: str) -> Iterator[None]:
        held[token] += 1
        if token == OTHER:
            raise Busy("somebody has it")
        yield
        if token == LATER:
            raise ArrakisError("it was lost meanwhile")

    for member in nodes.members:
        member.client.config_resetstat()
    families = [Parked(stamp=STAMP, token=token) for token in (FAMILY, OTHER, LATER, "deadbeef")]
    moved, failures = keyspace.park_families(keys, families, hold=hold)
    assert sum(each.client.info("commandstats")["cmdstat_scan"]["calls"] for each in nodes.primaries) == 3
    assert (moved, held) == ({FAMILY: 60, LATER: 60}, {FAMILY: 1, OTHER: 1, LATER: 1})
    assert {token: str(error) for token, error in failures.items()} == {
        OTHER: "somebody has it",
        LATER: "it was lost meanwhile",
    }
    seen = keyspace.survey(keys)
    assert seen.families == {OTHER: 60}
    assert {each.token for each in seen.parked} == {FAMILY, LATER}


def test_families_too_large_to_be_kept_are_parked_in_between(
    nodes: Nodes, keys: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyspace, "_KEPT", 10)
    monkeypatch.setattr(keyspace, "_BATCH", 7)
    fill(keys, [*names(), *names(OTHER)])
    families = [Parked(stamp=STAMP, token=token) for token in (FAMILY, OTHER)]
    assert keyspace.park_families(keys, families, hold=lambda _: free()) == ({FAMILY: 60, OTHER: 60}, {})
    assert keyspace.survey(keys).parked == dict.fromkeys(families, 60)


def test_what_redis_refuses_ends_the_pass(nodes: Nodes, keys: Redis) -> None:
    fill(keys, [*names(), *names(OTHER)])
    families = [Parked(stamp=STAMP, token=token) for token in (FAMILY, OTHER)]
    with halted(nodes) as barred, pytest.raises(Denied, match="no permissions"):
        keyspace.park_families(barred, families, hold=lambda _: free())
    assert keyspace.park_families(keys, families, hold=lambda _: free()) == (
        {FAMILY: 60, OTHER: 60},
        {},
    )


# ---- last, as what is dead takes two seconds to come back


def test_a_node_that_is_dead_is_named_and_then_the_one_in_its_place_is_asked(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_node, "_PAUSE", 0.001)
    monkeypatch.setattr(redis_node, "_LONGEST_PAUSE", 0.001)
    everything = fill_much(nodes, 60)
    following, dead = nodes.replica, nodes.followed
    keys = Redis(dead.url, timeout=5)
    scan = keys.scan("*")
    next(scan)
    nodes.kill(dead)
    with pytest.raises(Unreachable, match=f"at {dead.place}"):
        list(scan)
    following.ask("CLUSTER", "FAILOVER", "TAKEOVER")
    eventually(lambda: following.is_primary)
    nodes.agree()
    assert keys.values(everything) == [b"spice"] * 60
