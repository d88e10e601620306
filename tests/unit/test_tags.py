"""What a stop keeps as tags comes back exactly, fits into a tag whoever stopped, and is never guessed."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.scaling import Scaling
from runbooks.remedies.tags import BEFORE, STOP, Kept, RuleBefore, ServiceBefore, Stop, decode, encode, fit
from sandbox.errors import ArrakisError

AT = datetime(2026, 3, 1, 2, 30, 0, 250000, tzinfo=UTC)
TOKEN = "abcXYZ019+-._:/@"
ALLOWED = set(TOKEN) | set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 =")
KEPT = Kept(
    stop=Stop(id="stop-20260301-0230", by="chani", at=AT),
    before=ServiceBefore(desired=2, scaling=Scaling(minimum=1, maximum=4)),
)
TOLD = {
    STOP: "id=stop-20260301-0230 by=chani at=2026-03-01T02:30:00.250000+00:00",
    BEFORE: "desired=2 min=1 max=4 suspended=none",
}

counts = st.integers(0, 999_999_999)
befores = st.one_of(
    st.builds(
        RuleBefore,
        state=st.sampled_from(["ENABLED", "DISABLED", "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"]),
    ),
    st.builds(
        ServiceBefore,
        desired=counts,
        scaling=st.none()
        | st.builds(
            Scaling,
            minimum=counts,
            maximum=counts,
            in_suspended=st.booleans(),
            out_suspended=st.booleans(),
            scheduled_suspended=st.booleans(),
        ),
    ),
)
stops = st.builds(
    Stop,
    id=st.text(TOKEN, min_size=1, max_size=100),
    by=st.text(),
    at=st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=2))]),
                    min_value=datetime(2000, 1, 1)),
)  # fmt: skip


@given(st.builds(Kept, stop=stops, before=befores))
def test_what_is_kept_comes_back_exactly_but_for_a_name_that_no_tag_takes(kept: Kept) -> None:
    told = encode(kept)
    assert all(0 < len(value) <= 256 and set(value) <= ALLOWED for value in told.values())
    stop = Stop(id=kept.stop.id, by=fit(kept.stop.by), at=kept.stop.at)
    assert decode({"team": "sandboxes", **told}) == Kept(stop=stop, before=kept.before)
    assert encode(Kept(stop=stop, before=kept.before)) == told


def test_how_it_reads() -> None:
    assert encode(KEPT) == TOLD
    held = Scaling(minimum=0, maximum=4, in_suspended=True, scheduled_suspended=True)
    kept = Kept(stop=KEPT.stop, before=ServiceBefore(desired=0, scaling=held))
    assert encode(kept)[BEFORE] == "desired=0 min=0 max=4 suspended=in+scheduled"
    assert encode(Kept(stop=KEPT.stop, before=RuleBefore(state="ENABLED")))[BEFORE] == "state=ENABLED"


@pytest.mark.parametrize(
    ("name", "fitted"),
    [
        ("chani", "chani"),
        ("chani@sietch.example", "chani@sietch.example"),
        ("Chani Kynes", "Chani_Kynes"),
        ("id=x by=y", "id_x_by_y"),
        ("Ünal\n\x1b[2J", "_nal___2J"),
        ("", "_"),
        ("x" * 80, "x" * 64),
    ],
)
def test_a_name_is_made_to_fit(name: str, fitted: str) -> None:
    assert fit(name) == fitted


def test_no_tags_of_ours_is_no_stop() -> None:
    assert decode({}) is None
    assert decode({"team": "sandboxes", "arrakis-runbooks": "x"}) is None


@pytest.mark.parametrize(
    "changes",
    [
        {STOP: None},
        {BEFORE: None},
        {STOP: ""},
        {STOP: "chani"},
        {STOP: f"{TOLD[STOP]} "},
        {STOP: "id=s by=Chani Kynes at=2026-03-01T02:30:00+00:00"},
        {STOP: "id=s by=chani at=yesterday"},
        {STOP: "id=s by=chani at=2026-03-01T02:30:00"},
        {STOP: "id=s by=chani at=2026-03-01T02:30:00+02:00"},
        {STOP: "id=s by=chani at=0001-01-01T00:00:00+09:00"},
        {STOP: "id=s by=chani at=2026-03-01"},
        {STOP: f"id=s by={'x' * 65} at=2026-03-01T02:30:00+00:00"},
        {BEFORE: ""},
        {BEFORE: "desired=2 min=1"},
        {BEFORE: "desired=02"},
        {BEFORE: "desired=-1"},
        {BEFORE: "desired=٢"},
        {BEFORE: "desired=2 max=4 min=1 suspended=none"},
        {BEFORE: "desired=2 min=1 max=4 suspended=out+in"},
        {BEFORE: "desired=2 min=1 max=4 suspended=in+in"},
        {BEFORE: "desired=2 min=1 max=4 suspended=all"},
        {BEFORE: "desired=2 min=1 max=4 suspended=none\n"},
        {BEFORE: "state=enabled"},
        {BEFORE: "state=ENABLED desired=2"},
        {BEFORE: "\x1b[2J"},
    ],
)
def test_what_this_toolkit_did_not_write_is_not_guessed(changes: dict[str, Any]) -> None:
    tags = {key: value for key, value in {**TOLD, **changes}.items() if value is not None}
    with pytest.raises(ArrakisError, match="are not such as this toolkit writes") as told:
        decode(tags)
    assert str(told.value).isprintable()


@pytest.mark.parametrize(
    "kept",
    [
        Kept(stop=Stop(id="a b", by="chani", at=AT), before=KEPT.before),
        Kept(stop=Stop(id="", by="chani", at=AT), before=KEPT.before),
        Kept(stop=Stop(id="s" * 101, by="chani", at=AT), before=KEPT.before),
        Kept(stop=KEPT.stop, before=RuleBefore(state="neither on nor off")),
    ],
)
def test_what_no_tag_takes_is_refused(kept: Kept) -> None:
    with pytest.raises(ArrakisError, match="no tag takes"):
        encode(kept)
