"""What `runs show` prints of the blocks of a run."""

from salq.cli.runs import blocks_table
from salq.core import events as ev
from salq.core.progress import fold

DETAILS = {"output_at_start": 2.0, "loss.output": 1.5, "gradient.output.clipping": 3.0, "gradient.output.adapter": 4.0, "loss.weight_saliency": 1e-6}


def test_terms_and_gradients_have_their_columns() -> None:
    blocks = [ev.BlockStarted(0, of=2), ev.BlockDone(0, 0.25, {}, 1.0, DETAILS), ev.BlockStarted(1, of=2), ev.BlockDone(1, 0.5, {}, 1.0)]
    header, _, first, second = blocks_table(fold([ev.PhaseStarted("calibration", of=2), *blocks])).splitlines()
    assert header.split("  ")[0] == "block"
    assert "weight_saliency" in header
    assert first.split() == ["0", "25.0", "%", "1.50", "5.00", "1.00e-06", "0"]
    assert second.split() == ["1", "50.0", "%", "-", "-", "-", "-"]


def test_a_block_that_a_resume_loads_keeps_what_it_showed() -> None:
    done = ev.BlockDone(0, 0.25, {}, 1.0, DETAILS)
    progress = fold(
        [ev.PhaseStarted("calibration", of=1), ev.BlockStarted(0, of=1), done, ev.BlockStarted(0, of=1, stored=True), ev.BlockDone(0, 0.25, {}, 0.1)]
    )
    assert progress.details == {0: DETAILS}
