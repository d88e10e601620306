"""What is typed behind an option."""

import pytest

from runbooks.options import Telling, incident, number, said
from sandbox.errors import ArrakisError


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("", ""),
        ("Q1ABC23DEF", "Q1ABC23DEF"),
        (" 4711 ", "4711"),
        ("https://acme.pagerduty.com/incidents/Q1ABC23DEF", "Q1ABC23DEF"),
        ("https://acme.eu.pagerduty.com/incidents/Q1ABC23DEF?utm=x#notes", "Q1ABC23DEF"),
        ("https://acme.pagerduty.com/incidents/Q1ABC23DEF/timeline", "Q1ABC23DEF"),
    ],
)
def test_an_incident_is_its_id_or_its_pages_address(typed: str, named: str) -> None:
    assert incident(typed) == named


@pytest.mark.parametrize(
    "typed", ["../../etc", "Q1/notes", "q1", "Q" * 41, "https://acme.pagerduty.com/incidents/", "http://x/Q1"]
)
def test_what_is_no_incident_is_refused(typed: str) -> None:
    with pytest.raises(ArrakisError, match="takes an incident's id"):
        incident(typed)


@pytest.mark.parametrize("typed", ["abc", "0", "-1", "99999", "1.5", "٣"])
def test_a_number_is_within_what_it_may_be(typed: str) -> None:
    with pytest.raises(ArrakisError, match="--port takes a whole number from 1 to 65535"):
        number("--port", typed, most=65_535)


def test_options_are_said_again_as_they_were_typed() -> None:
    words = said(
        only="a,b",
        drop=True,
        canary=False,
        guild=None,
        drop_object=["x.y", "it's"],
        except_="",
        older_than="2d",
    )
    assert words == """--only a,b --drop --drop-object x.y --drop-object 'it'"'"'s' --older-than 2d"""


def test_a_status_wants_an_incident_and_an_apply() -> None:
    with pytest.raises(ArrakisError, match="--acknowledge needs an incident"):
        _ = Telling(acknowledge=True).named
    resolving = Telling(incident="Q1", resolve=True)
    assert resolving.named == "Q1"
    resolving.insist_on(True)
    with pytest.raises(ArrakisError, match="--resolve-when-healthy needs --apply"):
        resolving.insist_on(False)
    Telling(incident="Q1").insist_on(False)
