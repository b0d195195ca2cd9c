"""The fields of Advanced: a call that was on its way while they were drawn anew finds its function, or sets nothing."""

from typing import Any

import gradio as gr
import pytest
from gradio.state_holder import SessionState

from salq.ui.calibrate_form import _render_fields
from tests.helpers import in_a_loop_of_its_own


class Page:
    """The fields alone, as one visitor has them."""

    def __init__(self) -> None:
        with gr.Blocks() as self.blocks:
            overrides, self.fields_of = gr.State({}), gr.State({})
            _render_fields(overrides, self.fields_of)
        self.session = SessionState(self.blocks)

    async def draw(self, recipe: str, preset: str = "quick", drawn: int = 0) -> int:
        """Draw them; returns the id of the function that collects them."""
        (render,) = (fn for fn in self.blocks.fns.values() if fn.renderable is not None)
        self.session[self.fields_of._id] = {"recipe": recipe, "preset": preset, "drawn": drawn}
        output = await self.blocks.process_api(render, [None], state=self.session)
        (collect,) = output["render_config"]["dependencies"]
        return int(collect["id"])

    async def collect(self, function: int, **changed: Any) -> Any:
        """What a browser's call of that function sets, with all fields at their presets but `changed`. Raises KeyError when it is gone."""
        fn = self.session.blocks_config.fns[function]
        values = {control.elem_id: control.value for control in fn.inputs} | {f"set-{path}": value for path, value in changed.items()}
        await self.blocks.process_api(fn, list(values.values()), state=self.session)
        return self.session[fn.outputs[0]._id]


def test_drawn_twice_for_one_choice_it_is_one_function() -> None:
    async def visit() -> None:
        page = Page()
        first = await page.draw("apiq")
        assert await page.draw("apiq") == first
        assert await page.collect(first, **{"data-n_samples": 4}) == {"data.n_samples": 4}

    in_a_loop_of_its_own(visit())


def test_a_late_call_for_another_choice_sets_nothing() -> None:
    async def visit() -> None:
        page = Page()
        first = await page.draw("apiq")
        for choice in (("sapr", "quick", 1), ("apiq", "base", 2), ("apiq", "quick", 3)):
            assert await page.draw(*choice) != first
            with pytest.raises(KeyError):
                await page.collect(first)

    in_a_loop_of_its_own(visit())
