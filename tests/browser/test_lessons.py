"""The lessons in a browser: their arithmetic is salq's, every widget works by mouse and keyboard, dragging answers at once, the tour goes on."""

from typing import Any

import pytest
import torch
from playwright.sync_api import Locator, Page, expect

from salq.lessons.allocation import WIDTHS, allocate
from salq.lessons.facts import left
from salq.lessons.matrix import squared_error
from salq.lessons.words import LESSONS
from salq.quant.frozen import freeze, rtn
from salq.quant.grid import group_range, qparams_from_range
from salq.quant.size import matrix_bits
from salq.quant.spec import BITS, QuantSpec
from salq.ui.lessons import SCRIPTS
from tests.browser.conftest import Visit

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

MOVES = 12
LATENCY_MS = 50
SLIDER = "(one) => [one.value, one.max, one.getAttribute('aria-valuetext')]"
CHOSEN = "(one) => one.querySelector('input:checked').value"
FRAMES = "document.querySelector('.salq-lessons').salqFrames"

ARITHMETIC = """async ({ base, cases, halves, rows, deal, matrix }) => {
    const quant = await import(`${base}/quant.js`), linear = await import(`${base}/linear.js`);
    return {
        groups: cases.map(({ weights, spec, lower, upper }) => {
            const group = quant.quantizeGroup(weights, spec, lower, upper), error = quant.moved(weights, group);
            return { codes: group.codes, values: group.values, scale: group.scale, zero: group.zero, error: error.total };
        }),
        best: cases.slice(0, 6).map(({ weights, spec }) => quant.bestClip(weights, spec)),
        halves: halves.map(quant.half),
        rows: rows.map(({ weights, size, bits }) => ({
            codes: quant.quantizeRow(weights, size, { bits }).flatMap((group) => group.codes), stored: quant.bitsPerWeight({ bits }, size),
        })),
        deals: deal.budgets.map((mean) => linear.allocate(deal.weights, deal.cost, mean)),
        singular: linear.singularValues(matrix), left: linear.leftOver(linear.singularValues(matrix)),
        kl: linear.kl(linear.softmax(matrix[0]), linear.softmax(matrix[1])),
    };
}"""


def opened(visit: Visit, **options: Any) -> Page:
    """The page with its lessons alive."""
    page = visit(**options)
    expect(page.locator(".salq-lessons.ready")).to_be_visible()
    return page


def groups_of_weights() -> list[torch.Tensor]:
    """Random groups and the awkward ones, float32 `[1, n]`."""
    generator = torch.Generator().manual_seed(7)
    groups = [torch.randn(1, size, generator=generator) * spread for size in (16, 32, 64) for spread in (1e-4, 0.03, 1.0, 70.0) for _ in range(4)]
    outlier = torch.randn(1, 64, generator=generator) * 0.02
    outlier[0, 5] = 3.0
    constant, positive = torch.full((1, 32), 0.125), torch.rand(1, 32, generator=generator) + 0.5
    halfway = (torch.arange(-8, 8).float() * 0.25 + 0.125).unsqueeze(0)  # many ties
    return [*groups, outlier, constant, -constant, positive, -positive, halfway, torch.zeros(1, 16)]


def test_the_arithmetic_is_that_of_salq(visit: Visit) -> None:
    page = visit()
    generator = torch.Generator().manual_seed(1)
    cases: list[tuple[torch.Tensor, QuantSpec, float, float]] = []
    for number, weight in enumerate(groups_of_weights()):
        for bits in BITS:
            shares = (1.0, 1.0) if number % 2 else (float(torch.rand(1, generator=generator)) * 0.7 + 0.3, 0.62)
            cases.append((weight, QuantSpec(bits=bits, group_size=None, symmetric=number % 3 == 0), *shares))  # type: ignore[arg-type]
    halves = torch.cat([torch.randn(200, generator=generator) * 10.0**power for power in (-9, -7, -5, -2, 0, 3, 5)])
    halves = torch.cat([halves, torch.tensor([0.0, 65504.0, 65519.0, 65520.0, 1e9, 6.1e-5, 5.96e-8, 2.98e-8, 2.99e-8])])
    row = torch.randn(1, 256, generator=generator)
    deal = {
        "weights": [7, 3, 3, 7, 19, 19, 19],
        "cost": {str(bits): [(i + 1.5) ** 2 * 4.0**-bits for i in range(7)] for bits in WIDTHS},
        "budgets": [2, 2.5, 3, 3.3, 5, 8],
    }
    matrix = torch.randn(12, 20, generator=generator).double()
    sent = [
        {"weights": weight[0].tolist(), "spec": {"bits": spec.bits, "symmetric": spec.symmetric}, "lower": lower, "upper": upper}
        for weight, spec, lower, upper in cases
    ]
    rows = [{"weights": row[0].tolist(), "size": size, "bits": bits} for size in (16, 64, 256) for bits in (2, 3, 4)]
    base = f"{page.url.split('?')[0]}gradio_api/file={SCRIPTS.as_posix()}"
    asked = {"base": base, "cases": sent, "halves": halves.tolist(), "rows": rows, "deal": deal, "matrix": matrix.tolist()}
    found = page.evaluate(ARITHMETIC, asked)

    assert len(found["groups"]) > 200
    for (weight, spec, lower, upper), got in zip(cases, found["groups"], strict=True):
        low, high = group_range(weight, spec)
        frozen = freeze(weight, qparams_from_range(low * lower, high * upper, spec), spec)
        assert got["codes"] == frozen.codes[0].tolist(), (spec, lower, upper)
        assert got["scale"] == float(frozen.scale)
        assert got["zero"] == int(frozen.zero_point)
        assert got["values"] == frozen.effective_weight()[0].tolist()
        assert got["error"] == pytest.approx(squared_error(weight, frozen.effective_weight()), rel=1e-12, abs=1e-300)
    for (weight, spec, _, _), got in zip(cases, found["best"], strict=False):
        assert got["total"] <= squared_error(weight, rtn(weight, spec).effective_weight()) + 1e-15
    assert torch.equal(torch.tensor(found["halves"]), halves.half().float())
    for one, got in zip(rows, found["rows"], strict=True):
        spec = QuantSpec(bits=one["bits"], group_size=one["size"])
        assert got["codes"] == rtn(row, spec).codes[0].tolist()
        rows_of_a_matrix = 64  # one row alone ends in the middle of a byte
        assert got["stored"] == sum(matrix_bits(spec, rows_of_a_matrix, 256).values()) / (rows_of_a_matrix * 256)
    cost = {int(bits): values for bits, values in deal["cost"].items()}
    assert found["deals"] == [allocate(deal["weights"], cost, mean) for mean in deal["budgets"]]
    singular = torch.linalg.svdvals(matrix)
    assert found["singular"] == pytest.approx(singular.tolist(), rel=1e-9)
    assert found["left"][:12] == pytest.approx([left(singular.tolist(), rank) for rank in range(12)], rel=1e-9)
    log_p, log_q = matrix[0].log_softmax(0), matrix[1].log_softmax(0)
    assert found["kl"] == pytest.approx(float((log_p.exp() * (log_p - log_q)).sum()), rel=1e-12)


def lesson_of(page: Page, key: str) -> Locator:
    return page.locator(f"section[data-lesson={key}]")


def result(page: Page, key: str, expression: str) -> Any:
    """A value out of what the widget has computed: `r` is its result, `s` its state."""
    return page.evaluate(f"(key) => {{ const frame = {FRAMES}.get(key), r = frame.result, s = frame.state; return {expression}; }}", key)


def press_through(page: Page, key: str) -> None:
    """Move every slider and every choice of a lesson by keyboard: numbers, picture and summary follow."""
    lesson = lesson_of(page, key)
    for slider in lesson.locator("input[type=range]").all():
        before, highest, _ = slider.evaluate(SLIDER)
        slider.press("ArrowLeft" if before == highest else "ArrowRight")
        after, _, told = slider.evaluate(SLIDER)
        assert after != before
        assert told
    for group in lesson.locator("fieldset").all():
        name = group.evaluate(CHOSEN)
        group.locator("input:checked").press("ArrowRight")
        assert group.evaluate(CHOSEN) != name
    drawn = lesson.locator(".figure svg").inner_html()
    assert len(drawn) > 500
    assert "NaN" not in drawn
    assert "undefined" not in drawn
    assert all(text and "NaN" not in text for text in lesson.locator(".formula [data-v]").all_inner_texts()), key
    expect(lesson.locator(".live")).to_have_text(lesson.locator(".figure svg").get_attribute("aria-label") or "nothing")


def latencies(page: Page, key: str) -> list[float]:
    """Milliseconds from an input event to the finished drawing, layout included, for moves of the first slider."""
    return page.evaluate(
        """([key, moves]) => {
            const section = document.querySelector(`section[data-lesson=${key}]`), slider = section.querySelector("input[type=range]");
            const low = Number(slider.min), high = Number(slider.max), step = Number(slider.step), found = [];
            for (let i = 0; i <= moves; i += 1) {
                const started = performance.now();
                slider.value = low + Math.round(((high - low) * i) / moves / step) * step;
                slider.dispatchEvent(new Event("input", { bubbles: true }));
                section.querySelector(".figure").getBoundingClientRect();
                found.push(performance.now() - started);
            }
            return found;
        }""",
        [key, MOVES],
    )


@pytest.mark.parametrize(("theme", "width", "sources"), [("light", 1440, ("toy", "kept")), ("dark", 390, ("kept",))])
def test_every_lesson_by_keyboard_on_toy_and_real_weights(visit: Visit, theme: str, width: int, sources: tuple[str, ...]) -> None:
    page = opened(visit, theme=theme, width=width)
    slow: dict[str, float] = {}
    for lesson in LESSONS:
        section = lesson_of(page, lesson.key)
        expect(section.locator(".reveal")).to_be_hidden()
        for source in sources:
            section.locator(f".source button[data-source={source}]").press("Enter")
            expect(section).to_have_attribute("data-source", source)
            press_through(page, lesson.key)
            times = sorted(latencies(page, lesson.key))
            slow[f"{lesson.key} {source}"] = times[len(times) // 2]
        expect(section.locator(".source .note")).to_contain_text("SmolLM2")
        section.locator(".question button").nth(lesson.answer).press("Enter")
        expect(section.locator(".verdict").last).to_have_text("Yes.")
        expect(section.locator(".reveal")).to_be_visible()
        expect(section.locator(".reveal p")).to_have_count(1 + len(lesson.measured))
        assert page.evaluate("document.documentElement.scrollWidth") <= width, lesson.key
    assert max(slow.values()) < LATENCY_MS, slow


def test_the_drawing_is_what_salq_computes(visit: Visit) -> None:
    page = opened(visit)
    levels = lesson_of(page, "levels")
    expect(levels.locator("svg .level")).to_have_count(4)
    levels.locator(".source button[data-source=kept]").click()
    expect(levels).to_have_attribute("data-source", "kept")
    levels.locator("fieldset").first.get_by_text("3", exact=True).click()
    expect(levels.locator("svg .level")).to_have_count(8)
    weights = torch.tensor([result(page, "levels", "r.weights")])
    spec = QuantSpec(bits=3, group_size=None)
    assert result(page, "levels", "r.error.total") == pytest.approx(squared_error(weights, rtn(weights, spec).effective_weight()), rel=1e-9)
    assert levels.locator("svg .move").count() == weights.shape[1]

    handle = levels.locator("svg .handle").last  # the high end, dragged inward with the mouse
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] - 170, box["y"] + 5, steps=6)
    page.mouse.up()
    upper = result(page, "levels", "s.upper")
    assert 0.3 <= upper < 1
    low, high = group_range(weights, spec)
    frozen = freeze(weights, qparams_from_range(low, high * upper, spec), spec)
    assert result(page, "levels", "r.error.total") == pytest.approx(squared_error(weights, frozen.effective_weight()), rel=1e-9)
    assert result(page, "levels", "r.error.cut") > 0
    expect(levels.locator(".formula [data-v=zero]").first).to_have_text(str(int(frozen.zero_point)))

    groups = lesson_of(page, "groups")
    groups.locator("fieldset").first.get_by_text("32", exact=True).click()
    row = torch.tensor([result(page, "groups", "r.weights")])
    assert groups.locator("svg .band").count() == row.shape[1] // 32
    want = squared_error(row, rtn(row, QuantSpec(bits=3, group_size=32)).effective_weight())
    assert result(page, "groups", "r.total") == pytest.approx(want, rel=1e-9)

    saliency = lesson_of(page, "saliency")
    patch = result(page, "saliency", "({weights: r.patch.weights, saliency: r.patch.saliency, total: r.total})")
    weight, fisher = torch.tensor(patch["weights"]), torch.tensor(patch["saliency"], dtype=torch.float64)
    moved = weight.double() - rtn(weight, QuantSpec(bits=3, group_size=None)).effective_weight().double()
    assert patch["total"] == pytest.approx(float((fisher * moved.square()).sum() / 2), rel=1e-9)
    expect(saliency.locator("svg .curve.saliency")).not_to_have_count(0)


def test_the_selected_matrix_and_what_is_kept_for_the_default_model_only(visit: Visit) -> None:
    page = opened(visit)
    groups = lesson_of(page, "groups")
    groups.locator(".source button[data-source=selected]").click()
    expect(groups).to_have_attribute("data-source", "selected")
    expect(groups.locator(".source .note")).to_contain_text("tiny-llama, block 0, mlp.down_proj")
    assert len(result(page, "groups", "r.weights")) == 256
    travel = lesson_of(page, "travel")
    travel.locator(".source button[data-source=selected]").click()
    expect(travel.locator(".source .note")).to_contain_text("Kept for the default model only")
    expect(travel).to_have_attribute("data-source", "toy")
    saliency = lesson_of(page, "saliency")
    saliency.locator(".source button[data-source=selected]").click()
    expect(saliency.locator(".source .note")).to_contain_text("No saliency map of this model")


def test_two_lessons_that_ask_at_once_are_both_answered(visit: Visit) -> None:
    page = opened(visit)
    line = page.context.new_cdp_session(page)
    line.send("Network.emulateNetworkConditions", {"offline": False, "latency": 500, "downloadThroughput": -1, "uploadThroughput": -1})
    lesson_of(page, "groups").locator(".source button[data-source=selected]").press("Enter")
    lesson_of(page, "levels").locator(".source button[data-source=kept]").press("Enter")
    expect(lesson_of(page, "groups")).to_have_attribute("data-source", "selected")
    expect(lesson_of(page, "levels")).to_have_attribute("data-source", "kept")


def test_the_tour_goes_on_when_the_learner_does_it_and_can_be_left(visit: Visit) -> None:
    page = opened(visit)
    tour = page.locator(".salq-tour")
    tour.locator(".start").click()
    expect(tour.locator(".task")).to_contain_text("1 of 7")
    slider = page.locator("#lesson-levels-upper")
    for _ in range(60):
        slider.press("ArrowLeft")
        if "done" in (lesson_of(page, "levels").get_attribute("class") or ""):
            break
    expect(tour.locator(".task")).to_contain_text("2 of 7")
    lesson_of(page, "groups").locator("fieldset").first.get_by_text("16", exact=True).click()
    expect(tour.locator(".task")).to_contain_text("3 of 7")
    page.keyboard.press("Escape")
    expect(tour.locator(".start")).to_be_visible()
    expect(tour.locator(".task")).to_contain_text("New to this?")
    tour.locator(".start").click()  # what was done stays done
    expect(tour.locator(".task")).to_contain_text("3 of 7")
    tour.locator(".leave").click()
    expect(tour.locator(".leave")).to_be_hidden()
