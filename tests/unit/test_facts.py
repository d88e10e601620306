"""A probe that fails or hangs costs one unknown fact, never the others."""

from threading import Event

from sandbox.errors import Unreachable
from sandbox.facts import Known, Unknown, gather
from sandbox.text import brief


def test_each_failure_is_one_unknown_and_the_others_are_known() -> None:
    released = Event()
    refusal, fault = Unreachable("nobody home", hint="knock louder"), ValueError("bad digit")

    def refuse() -> None:
        raise refusal

    def break_down() -> None:
        raise fault

    try:
        facts = gather(
            {
                "hung": lambda: released.wait(30),
                "refused": refuse,
                "good": lambda: 7,
                "broken": break_down,
                "empty": lambda: None,
            },
            deadline=0.05,
        )
    finally:
        released.set()

    assert list(facts) == ["hung", "refused", "good", "broken", "empty"]
    assert facts["good"] == Known(7)
    assert facts["empty"] == Known(None)
    assert facts["refused"] == Unknown("nobody home", "knock louder", refusal)
    assert facts["broken"] == Unknown("the broken probe failed: ValueError: bad digit", "", fault)
    assert (brief(5.49997), brief(10), brief(0.05)) == ("5.5", "10", "0.05")
    assert facts["hung"] == Unknown("no answer within 0.05 s", "is the server up? --timeout S waits longer")


def test_the_deadline_is_for_all_together() -> None:
    met, other = Event(), Event()

    def first() -> bool:
        met.set()
        return other.wait(5)

    def second() -> bool:
        other.set()
        return met.wait(5)

    assert gather({"first": first, "second": second}, deadline=5) == {
        "first": Known(True),
        "second": Known(True),
    }


def test_no_probes_no_facts() -> None:
    assert gather({}, deadline=0) == {}
