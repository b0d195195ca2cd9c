"""Components of a session that grow while Gradio goes over them, and functions that a redraw took away."""

import copy
from types import SimpleNamespace

import pytest

from salq.ui.guard import Functions, SteadyDict


def test_a_dictionary_may_grow_while_it_is_gone_over_and_so_may_a_sessions_copy() -> None:
    whole = SteadyDict({0: "a", 1: "b"})
    mine = copy.copy(whole)  # what a session of Gradio begins with
    for number, value in enumerate(mine.values()):
        mine[10 + number] = value
    for key, value in mine.items():
        mine[key + 100] = value
    assert len(mine) == 8
    assert dict(whole) == {0: "a", 1: "b"}


def test_a_function_that_was_taken_away_is_found_and_changes_nothing_and_only_in_its_session() -> None:
    whole = Functions({0: SimpleNamespace(fn=str, outputs=["kept"])})
    one, two = copy.copy(whole), copy.copy(whole)
    one[1] = two[1] = SimpleNamespace(fn=str, outputs=["mine"])
    del one[1]
    assert list(one) == list(whole) == [0]
    assert one[1].outputs == ["mine"]
    assert one[1].fn("whatever") == {"__type__": "update"}
    assert two[1].fn is str
    with pytest.raises(KeyError):
        whole[1]
    one[1] = SimpleNamespace(fn=int, outputs=[])
    assert one[1].fn is int
