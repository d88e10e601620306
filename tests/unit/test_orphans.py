"""Nothing that may belong to a live sandbox is ever an orphan."""

from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.model import Sandbox, Status, may_become, way_to_destroying
from sandbox.orphans import Orphan, Placement, Roster, Standing, find_orphans
from tests.unit.worlds import lives, namings, row, rows, worlds

ID = UUID("83963dd9-82b6-49b7-a7f6-d86f86e45136")
TWIN = UUID("83963dd9-0000-4000-8000-000000000000")  # the same first eight digits
DECOYS = (
    "sandboxes",
    "sandbox-tools",
    "sandboxXdata",
    "sandbox_shared_fixtures",
    "sandbox_cafe",
    "sandbox_",
    "public",
)


def _both(roster: Roster, token: str) -> list[Placement]:
    return [roster.place_schema(f"sandbox_{token}"), roster.place_family(token)]


@pytest.mark.parametrize("status", lives)
@pytest.mark.parametrize("token", namings(ID))
def test_every_naming_of_a_live_row_is_live(token: str, status: Status) -> None:
    owner = row(ID, status)
    for place in _both(Roster([owner]), token):
        assert (place.standing, place.sandboxes) == (Standing.LIVE, (owner,))
        assert owner.name in place.reason


@pytest.mark.parametrize("token", namings(ID))
def test_every_naming_of_a_destroyed_row_is_an_orphan_that_it_explains(token: str) -> None:
    gone = row(ID, Status.DESTROYED)
    for place in _both(Roster([gone]), token):
        assert (place.standing, place.sandboxes) == (Standing.ORPHAN, (gone,))
        assert place.reason == f"its sandbox {gone.name} is destroyed"


@pytest.mark.parametrize("token", namings(ID))
def test_an_id_without_any_row_is_an_orphan(token: str) -> None:
    for place in _both(Roster([]), token):
        assert (place.standing, place.sandboxes) == (Standing.ORPHAN, ())


@pytest.mark.parametrize("name", DECOYS)
def test_decoys_are_unclassifiable(name: str) -> None:
    assert Roster([row(ID, Status.RUNNING)]).place_schema(name).standing is Standing.UNCLASSIFIABLE


@pytest.mark.parametrize("token", ["cafe", "route", "x", str(ID)[:7], str(ID) + "0", ""])
def test_key_tokens_that_are_no_ids_are_unclassifiable(token: str) -> None:
    assert Roster([]).place_family(token).standing is Standing.UNCLASSIFIABLE


@pytest.mark.parametrize("name", ["legacy_data", "LEGACY_DATA", f"pending_{ID}"])
def test_a_schema_without_the_prefix_is_live_by_the_column(name: str) -> None:
    owner = row(ID, Status.CREATING, schema_name=name)
    assert Roster([owner]).place_schema(name).sandboxes == (owner,)


def test_two_live_sandboxes_of_one_prefix_make_it_unclassifiable() -> None:
    one, other = row(ID, Status.RUNNING, schema_name=None), row(TWIN, Status.EXPIRED, schema_name=None)
    roster = Roster([one, other])
    for place in _both(roster, "83963dd9"):
        assert place.standing is Standing.UNCLASSIFIABLE
        assert one.name in place.reason
        assert other.name in place.reason
    assert roster.place_family(str(ID)).sandboxes == (one,)


def test_a_live_twin_protects_the_prefix_that_a_destroyed_one_left() -> None:
    gone, owner = row(ID, Status.DESTROYED), row(TWIN, Status.RUNNING)
    for place in _both(Roster([gone, owner]), "83963dd9"):
        assert (place.standing, place.sandboxes) == (Standing.LIVE, (owner,))


def test_the_id_of_one_and_the_column_of_another_is_ambiguous() -> None:
    other = row(UUID(int=7), Status.RUNNING, schema_name=f"sandbox_{ID}")
    assert Roster([row(ID, Status.RUNNING), other]).place_schema(f"sandbox_{ID}").standing is (
        Standing.UNCLASSIFIABLE
    )


OWNER = row(ID, Status.RUNNING, name="sietch", schema_name="Legacy")
GONE = row(TWIN, Status.DESTROYED, name="gone", schema_name="Old")
NO_ID, NO_PREFIX = "its suffix is no id: not hex, or shorter than 8 digits", "it does not start with sandbox_"
LIVE, ORPHAN, UNCLASSIFIABLE = Standing


@pytest.mark.parametrize(
    ("name", "standing", "sandboxes", "reason"),
    [
        ("legacy", LIVE, (OWNER,), "it belongs to sietch (running)"),
        ("OLD", UNCLASSIFIABLE, (GONE,), NO_PREFIX),
        ("public", UNCLASSIFIABLE, (), NO_PREFIX),
        ("sandbox_cafe", UNCLASSIFIABLE, (), NO_ID),
        (f"sandbox_{str(ID)[:7]}", UNCLASSIFIABLE, (), NO_ID),
        (f"sandbox_{ID}", LIVE, (OWNER,), "it belongs to sietch (running)"),
        (f"sandbox_{TWIN}", ORPHAN, (GONE,), "its sandbox gone is destroyed"),
        (f"sandbox_{UUID(int=7)}", ORPHAN, (), "no sandbox row has this id"),
    ],
)
def test_a_name_is_placed_with_its_rows_and_the_reason(
    name: str, standing: Standing, sandboxes: tuple[Sandbox, ...], reason: str
) -> None:
    roster = Roster([OWNER, GONE])
    expected = Placement(name=name, standing=standing, sandboxes=sandboxes, reason=reason)
    assert roster.place_schema(name) == expected
    if name.startswith("sandbox_"):
        token = name.removeprefix("sandbox_")
        assert roster.place_family(token) == replace(expected, name=token)


def test_what_several_could_own_names_them_all_in_order() -> None:
    rows = [row(id_, Status.RUNNING, name=name) for id_, name in ((ID, "zeta"), (TWIN, "alia"))]
    token = "83963dd9"
    expected = Placement(
        name=token, standing=UNCLASSIFIABLE, sandboxes=tuple(rows), reason="it could be of alia and zeta"
    )
    assert Roster(rows).place_family(token) == expected


def test_a_token_that_is_no_id_shows_the_destroyed_row_whose_column_names_it() -> None:
    gone = row(ID, Status.DESTROYED, schema_name="sandbox_shared")
    assert Roster([gone]).place_schema("sandbox_shared").sandboxes == (gone,)


def test_standings_are_told_by_these_words() -> None:
    assert [each.value for each in Standing] == ["live", "orphan", "unclassifiable"]


def test_orphans_come_with_their_kind_their_token_and_their_place() -> None:
    roster = Roster([OWNER, GONE])
    found = find_orphans(roster, [f"sandbox_{TWIN}", f"sandbox_{ID}", "public"], [str(TWIN), "cafe"])
    places = (roster.place_schema(f"sandbox_{TWIN}"), roster.place_family(str(TWIN)))
    assert found == [
        Orphan(kind=kind, token=str(TWIN), placement=place)
        for kind, place in zip(("schema", "keys"), places, strict=True)
    ]


@given(worlds())
def test_no_name_of_a_live_row_is_ever_an_orphan(world: list[Sandbox]) -> None:
    roster = Roster(world)
    for owner in world:
        if not owner.live:
            continue
        if owner.schema_name:
            assert roster.place_schema(owner.schema_name).standing is not Standing.ORPHAN
        for token in namings(owner.id):
            for place in _both(roster, token):
                assert place.standing is not Standing.ORPHAN
                assert place.standing is Standing.UNCLASSIFIABLE or place.sandboxes == (owner,)


@given(worlds(), st.uuids())
def test_a_whole_id_without_a_live_row_is_always_an_orphan(world: list[Sandbox], unknown: UUID) -> None:
    roster = Roster(world)
    columns = {owner.schema_name for owner in world if owner.live}
    alive = {owner.id for owner in world if owner.live}
    for id_ in {unknown, *(gone.id for gone in world)} - alive:
        if f"sandbox_{id_}" not in columns:
            assert all(place.standing is Standing.ORPHAN for place in _both(roster, str(id_)))


@given(worlds(), st.sampled_from(DECOYS))
def test_decoys_are_never_orphans(world: list[Sandbox], decoy: str) -> None:
    assert Roster(world).place_schema(decoy).standing is not Standing.ORPHAN


@given(st.lists(rows(), min_size=2, max_size=4, unique_by=lambda found: found.id), st.integers(8, 12))
def test_a_prefix_of_several_live_rows_is_unclassifiable(found: list[Sandbox], length: int) -> None:
    head = found[0].hex[:length]
    alike = [
        row(UUID(hex=head + one.hex[length:]), Status.RUNNING, schema_name=None, name=f"s{number}")
        for number, one in enumerate(found)
    ]
    if len({one.id for one in alike}) > 1:
        assert {place.standing for place in _both(Roster(alike), head)} == {Standing.UNCLASSIFIABLE}


@pytest.mark.parametrize("status", list(Status))
def test_the_way_to_destroying_is_allowed_and_leads_there(status: Status) -> None:
    way = way_to_destroying(status)
    steps = list(zip((status, *way), way, strict=False))
    assert all(may_become(old, new) for old, new in steps)
    ended = status in (Status.DESTROYING, Status.DESTROYED)
    assert way[-1:] == (() if ended else (Status.DESTROYING,))


@pytest.mark.parametrize("token", namings(ID))
def test_an_owner_is_the_one_live_row_or_the_destroyed_one_that_left_it(token: str) -> None:
    live, gone = row(ID, Status.RUNNING), row(ID, Status.DESTROYED)
    for roster, owner in ((Roster([live]), live), (Roster([gone]), gone), (Roster([]), None)):
        assert [place.owner for place in _both(roster, token)] == [owner, owner]


def test_what_two_live_rows_could_own_has_no_owner() -> None:
    one, other = row(ID, Status.RUNNING), row(TWIN, Status.EXPIRED)
    for place in _both(Roster([one, other]), "83963dd9"):
        assert place.owner is None
    for place in _both(Roster([one, row(TWIN, Status.DESTROYED)]), "83963dd9"):
        assert place.owner == one


@given(worlds())
def test_orphans_are_those_that_no_live_row_claims(world: list[Sandbox]) -> None:
    roster = Roster(world)
    tokens = [token for each in world for token in namings(each.id)]
    found = find_orphans(roster, [f"sandbox_{token}" for token in tokens] + list(DECOYS), [*tokens, "cafe"])
    expected = [token for token in tokens if roster.place_family(token).standing is Standing.ORPHAN]
    assert [each.token for each in found if each.kind == "schema"] == expected
    assert {each.token for each in found if each.kind == "keys"} == set(expected)
