"""Components of a session that grow while Gradio goes over them."""

import copy

from salq.ui.guard import SteadyDict


def test_a_dictionary_may_grow_while_it_is_gone_over_and_so_may_a_sessions_copy() -> None:
    whole = SteadyDict({0: "a", 1: "b"})
    mine = copy.copy(whole)  # what a session of Gradio begins with
    for number, value in enumerate(mine.values()):
        mine[10 + number] = value
    for key, value in mine.items():
        mine[key + 100] = value
    assert len(mine) == 8
    assert dict(whole) == {0: "a", 1: "b"}
