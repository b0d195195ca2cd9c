"""Figures of a calibration in progress."""

import pytest

from salq.core.progress import BlockCurve
from salq.figures.calibration import continued_steps, depth_errors, loss_terms


def curve(*stages: str, per_stage: int = 3) -> BlockCurve:
    result = BlockCurve()
    for stage in stages:
        for step in range(1, per_stage + 1):
            result.add(stage, step, {"output": 1.0 / step, "weight": 0.0 if step == 1 else 0.5})
    return result


def test_steps_go_on_counting_over_stages() -> None:
    steps, borders = continued_steps(curve("weight", "mixed"))
    assert steps == [1, 2, 3, 4, 5, 6]
    assert borders == [(1, "weight"), (4, "mixed")]
    assert continued_steps(curve("only"))[1] == []
    assert continued_steps(BlockCurve()) == ([], [])


def test_every_term_is_a_line_with_its_name() -> None:
    figure = loss_terms(curve("mixed"), 4)
    assert [trace.name for trace in figure.data] == ["output", "weight"]
    assert figure.data[1].y[0] is None  # zero has no place on a log scale
    assert figure.layout.yaxis.type == "log"
    assert figure.layout.xaxis.title.text == "optimizer step"
    assert "Block 4" in figure.layout.title.text
    assert {trace.line.dash for trace in figure.data} == {"solid", "dash"}


def test_stage_borders_are_named() -> None:
    figure = loss_terms(curve("weight", "mixed"), 0)
    assert [annotation.text for annotation in figure.layout.annotations] == ["weight", "mixed"]
    assert len(figure.layout.shapes) == 2


@pytest.mark.parametrize("n_blocks", [1, 2, 30])
def test_the_depth_is_drawn_from_the_start(n_blocks: int) -> None:
    figure = depth_errors([0.1] + [None] * (n_blocks - 1), [0.2] * n_blocks, "apiq")
    assert tuple(figure.layout.xaxis.range) == (-0.5, n_blocks - 0.5)
    assert figure.layout.yaxis.title.text == "‖y−ŷ‖ / ‖y‖"


def test_without_text_the_weights_are_drawn() -> None:
    figure = depth_errors([None, None], [0.2, 0.3], "rtn")
    assert list(figure.data[0].y) == [0.2, 0.3]
    assert figure.layout.yaxis.title.text == "‖w−ŵ‖ / ‖w‖"
