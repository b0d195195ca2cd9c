"""What Explore shows before any event: drawn once, when the page is built, from what is on disk."""

from salq.core.errors import SalqError
from salq.runs.store import RunStore
from salq.ui.context import Choices, UiContext
from salq.ui.explore_actions import config_or_none, kept_picture, n_blocks_of
from salq.ui.explore_charts import chart_or_problem, depth_chart, money_charts
from salq.ui.explore_grid import GridView, grid_view
from salq.ui.explore_group import kept_group_picture
from salq.ui.explore_shown import digest, matrix_html, sizes_html
from salq.ui.explore_subject import NOTHING, ROUNDING, subjects

FIRST_METRIC = "output_error"
"""It differs most between matrices: the same rounding hurts some a lot and others hardly."""


class First:
    """The parts of the tab at its first paint."""

    def __init__(self, ctx: UiContext) -> None:
        """Reads the run store and the kept results; fetches nothing."""
        choices, selection = Choices(ctx.default_model, 3, 64, False, "auto", "auto"), {**ctx.selection.value, **ctx.spot.value}
        self.block, self.matrix = selection["block"], selection["matrix"]
        self.n_blocks = max(n_blocks_of(ctx.default_model), 1)
        self.subjects = subjects(ctx.store, ctx.default_model)
        self.grid = _safe_grid(ctx.store, FIRST_METRIC, choices)
        self.maps = kept_picture(choices, self.block, self.matrix)
        self.matrix_text = matrix_html(self.maps)
        self.sizes = sizes_html(choices)
        self.depth = chart_or_problem(lambda: depth_chart(ctx.store, choices, ROUNDING, NOTHING, self.block))
        self.size, self.budget = money_charts(ctx.store, choices, config_or_none(choices.model), ROUNDING, NOTHING, None)
        self.group = kept_group_picture(choices, selection)
        self.money_digests = [digest(one) for one in (self.size.figure, self.budget.curve.figure, self.budget.grid)]
        self.group_digests = [digest(one) for one in (self.group.line.figure, self.group.tile, self.group.histogram.figure)]


def _safe_grid(store: RunStore, metric: str, choices: Choices) -> GridView:
    try:
        return grid_view(store, choices, metric)
    except SalqError as error:
        return GridView(None, "", "", str(error), [], [])
