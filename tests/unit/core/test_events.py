"""Events are JSON values and back; the fold of them keeps its laws."""

import json

import pytest

from salq.core import events as ev
from salq.core.progress import MAX_POINTS, Progress, fold

EXAMPLES = [
    ev.RunStarted("20260101-000000-abcd", at=1.0),
    ev.PhaseStarted("calibration", of=2, weight=3.0),
    ev.PhaseStep("evaluation", 1),
    ev.BlockStarted(0, of=2, stored=True),
    ev.StepDone(0, "mixed", 1, 10, {"output_mse": 0.5, "weight_saliency": 0.1}, grad_norm=1.5),
    ev.BlockDone(0, None, {"mlp.down_proj": 0.1}, 2.0, {"output_at_start": 1.0}),
    ev.MetricReported("kl", None),
    ev.PhaseDone("calibration", 3.0),
    ev.RunDone(4.0),
    ev.RunFailed("It was too large.", "ResourceError"),
    ev.RunCancelled(1),
]


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
def test_json_round_trip(event: ev.Event) -> None:
    assert ev.from_json(json.loads(json.dumps(event.to_json()))) == event


def test_every_kind_has_an_example() -> None:
    assert {type(event).__name__ for event in EXAMPLES} == set(ev.KINDS)


@pytest.mark.parametrize("value", [{}, {"kind": "Nothing"}, {"kind": "RunDone"}, {"kind": "RunDone", "seconds": 1, "more": 2}])
def test_what_is_not_an_event_is_refused(value: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError)):
        ev.from_json(value)


def a_run(blocks: int = 3, steps: int = 5) -> list[ev.Event]:
    """A whole run, one event per second."""
    events: list[ev.Event] = [
        ev.RunStarted("r"),
        ev.PhaseStarted("load", 1, "models", weight=5),
        ev.MetricReported("plan", {"load": 5, "calibration": 90, "evaluation": 5}),
        ev.PhaseStep("load", 1),
        ev.PhaseDone("load", 3),
        ev.PhaseStarted("calibration", blocks),
    ]
    for block in range(blocks):
        events.append(ev.BlockStarted(block, blocks, steps))
        events += [ev.StepDone(block, "output", step, steps, {"output_mse": 1 / step}) for step in range(1, steps + 1)]
        events.append(ev.BlockDone(block, 0.1, {"mlp.down_proj": 0.2}, 5))
    events += [ev.PhaseDone("calibration", 50), ev.PhaseStarted("evaluation", 2, "windows")]
    events += [ev.PhaseStep("evaluation", 1), ev.PhaseStep("evaluation", 2), ev.MetricReported("perplexity", 12.5), ev.PhaseDone("evaluation", 4)]
    events.append(ev.RunDone(60))
    return [type(event)(**{**vars(event), "at": float(second)}) for second, event in enumerate(events)]


def test_fraction_rises_and_ends_at_one() -> None:
    progress, fractions = Progress(), []
    for event in a_run():
        progress.add(event)
        fractions.append(progress.fraction)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert max(fractions[:-1]) < 1.0


def test_the_end_is_told() -> None:
    progress = fold(a_run())
    assert (progress.outcome, progress.blocks_done, progress.metrics["perplexity"], progress.seconds) == ("done", 3, 12.5, 60)
    assert progress.phase_seconds == {"load": 3, "calibration": 50, "evaluation": 4}
    assert progress.eta is None


def test_time_left_follows_the_fraction() -> None:
    events = a_run()
    half = fold(events[: len(events) // 2])
    assert half.eta is not None
    elapsed = half.last_at - half.started_at
    assert half.eta == pytest.approx(elapsed * (1 - half.fraction) / half.fraction)


def test_a_resumed_run_folds_from_its_new_start() -> None:
    progress = fold([*a_run()[:12], ev.RunCancelled(1, at=12), ev.RunStarted("r", resumed=True, at=100)])
    assert (progress.outcome, progress.fraction, progress.started_at) == ("", 0.0, 100)


def test_curves_stay_small_and_keep_their_first_point() -> None:
    steps = 10 * MAX_POINTS
    curve = fold(a_run(blocks=1, steps=steps)).curves[0]
    assert len(curve.steps) < MAX_POINTS
    assert curve.steps[0] == 1
    assert curve.steps == sorted(set(curve.steps))
    assert len(curve.steps) == len(curve.losses) == len(curve.stages)
