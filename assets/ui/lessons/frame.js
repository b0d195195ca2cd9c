// The frame of every lesson: controls, the switch between toy and real weights, the question, the formula's live numbers, the summary.
// A lesson is {key, start(material), controls(state, material), compute(state, material), draw(result, state, size), numbers(result, state),
// summary(result, state), done(state, result)}; compute is pure, and draw returns SVG elements and a height.

import { el, html } from "./draw.js";

const SAY_AFTER = 350;

export class Frame {
  /** section: the server's <section data-lesson=...>; ask(): wishes for real material; onDone(key): the learner did what the lesson is about. */
  constructor(section, lesson, { ask, onDone }) {
    Object.assign(this, { section, lesson, ask, onDone, material: null, wantsReal: false, slowest: 0, finished: false });
    this.figure = section.querySelector(".figure");
    this.controlsBox = section.querySelector(".controls");
    this.live = section.querySelector(".live");
    this.state = lesson.start(null);
    this.width = 0;
    this.buildSwitch();
    this.buildQuestion();
    this.buildControls();
    this.svg = el("svg", { role: "img" });
    this.figure.replaceChildren(this.svg);
    this.figure.addEventListener("pointerdown", (event) => this.drag(event));
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.figure);
    this.resize();
  }

  // ---- toy or real ----------------------------------------------------------------------------------------------------------
  buildSwitch() {
    this.buttons = [...this.section.querySelectorAll(".source button")];
    for (const button of this.buttons) button.onclick = () => this.choose(button.dataset.source);
    this.note = this.section.querySelector(".source .note");
    this.mark("toy");
  }

  mark(source) {
    for (const button of this.buttons) button.setAttribute("aria-pressed", String(button.dataset.source === source));
    this.section.dataset.source = source;
  }

  choose(source) {
    if (source === "toy") {
      this.wantsReal = false;
      return this.use(null, "");
    }
    this.wantsReal = true;
    this.note.textContent = "Reading the weights";
    this.ask(source, this);
  }

  /** Show this material; null is the toy. Ignored when the learner has gone back to the toy meanwhile. */
  use(material, told, source = material ? "real" : "toy") {
    if (material && !this.wantsReal) return;
    this.material = material;
    this.note.textContent = told;
    this.state = { ...this.lesson.start(material), ...this.kept() };
    this.mark(source);
    this.buildControls();
    this.redraw();
  }

  kept() {
    const bits = this.state.bits;
    return bits === undefined ? {} : { bits };
  }

  // ---- the question ---------------------------------------------------------------------------------------------------------
  buildQuestion() {
    const box = this.section.querySelector(".question"), reveal = this.section.querySelector(".reveal");
    const options = [...box.querySelectorAll("button")], verdict = box.querySelector(".verdict");
    options.forEach((button, i) => {
      button.onclick = () => {
        const right = i === Number(box.dataset.answer);
        options.forEach((one, j) => {
          one.setAttribute("aria-pressed", String(i === j));
          one.classList.toggle("right", j === Number(box.dataset.answer));
        });
        verdict.textContent = right ? "Yes." : "Not quite.";
        reveal.hidden = false;
        this.section.classList.add("answered");
        this.check();
      };
    });
  }

  // ---- controls -------------------------------------------------------------------------------------------------------------
  buildControls() {
    const made = this.lesson.controls(this.state, this.material).map((one) => (one.kind === "choice" ? this.choice(one) : this.range(one)));
    this.controlsBox.replaceChildren(...made);
  }

  range(one) {
    const id = `lesson-${this.lesson.key}-${one.id}`;
    const shown = html("output", { className: "value" }), input = html("input", { type: "range", id, min: one.min, max: one.max, step: one.step });
    const show = () => {
      shown.textContent = one.text ? one.text(this.state[one.id]) : this.state[one.id];
      input.setAttribute("aria-valuetext", shown.textContent);
    };
    input.value = this.state[one.id];
    show();
    input.oninput = () => {
      this.set({ [one.id]: Number(input.value) });
      show();
    };
    const label = html("label", { htmlFor: id, textContent: one.label });
    const box = html("div", { className: "control" }, [html("div", { className: "name" }, [label, shown]), input]);
    box.sync = () => {
      input.value = this.state[one.id];
      show();
    };
    return box;
  }

  choice(one) {
    const name = `lesson-${this.lesson.key}-${one.id}`, legend = html("legend", { textContent: one.label });
    const inputs = [];
    const options = one.options.map(([value, text]) => {
      const input = html("input", { type: "radio", name, value, checked: this.state[one.id] === value });
      input.onchange = () => {
        this.set({ [one.id]: value });
      };
      inputs.push([input, value]);
      return html("label", {}, [input, html("span", { textContent: text })]);
    });
    const box = html("fieldset", { className: "control choice" }, [legend, html("div", { className: "options" }, options)]);
    box.sync = () => inputs.forEach(([input, value]) => (input.checked = this.state[one.id] === value));
    return box;
  }

  // ---- state, drawing ---------------------------------------------------------------------------------------------------------
  /** Change the state as the learner wishes and draw it. */
  set(change) {
    const started = performance.now();
    Object.assign(this.state, change);
    this.touched = true;
    this.redraw();
    for (const box of this.controlsBox.children) box.sync();
    this.slowest = Math.max(this.slowest, performance.now() - started);
    this.check();
  }

  check() {
    if (!this.finished && this.touched && this.lesson.done(this.state, this.result)) {
      this.finished = true;
      this.onDone(this.lesson.key);
    }
  }

  resize() {
    const width = Math.min(Math.max(Math.floor(this.figure.clientWidth), 0), 900);
    if (width < 200 || width === this.width) return;
    this.width = width;
    this.redraw();
  }

  redraw() {
    if (!this.width) return;
    this.result = this.lesson.compute(this.state, this.material);
    const drawn = this.lesson.draw(this.result, this.state, { width: this.width, set: (change) => this.set(change), material: this.material });
    this.grab = drawn.drag;
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${Math.ceil(drawn.height)}`);
    this.svg.setAttribute("width", this.width);
    this.svg.setAttribute("height", Math.ceil(drawn.height));
    this.svg.replaceChildren(...drawn.parts);
    this.svg.style.touchAction = drawn.drag ? "pan-y" : "";
    if (drawn.below) this.figure.replaceChildren(this.svg, drawn.below);
    else if (this.figure.childElementCount > 1) this.figure.replaceChildren(this.svg);
    const values = this.lesson.numbers(this.result, this.state, this.material);
    for (const slot of this.section.querySelectorAll(".formula [data-v]")) slot.textContent = values[slot.dataset.v] ?? "";
    const text = this.lesson.summary(this.result, this.state, this.material);
    this.svg.setAttribute("aria-label", text);
    clearTimeout(this.saying);
    this.saying = setTimeout(() => (this.live.textContent = text), this.live.textContent ? SAY_AFTER : 0);
  }

  // A drawing may be dragged: `drag(x, y)` of what draw() returned gives the change of state at a place of the picture.
  drag(event) {
    if (!this.grab || event.button !== 0 || !this.svg.contains(event.target)) return;
    const grip = this.grab(...this.place(event), null);
    if (!grip) return;
    event.preventDefault();
    this.figure.setPointerCapture(event.pointerId);
    const move = (moved) => {
      const change = this.grab(...this.place(moved), grip.name);
      if (change) this.set(change.state);
    };
    const end = () => {
      this.figure.removeEventListener("pointermove", move);
      this.figure.removeEventListener("pointerup", end);
      this.figure.removeEventListener("pointercancel", end);
    };
    this.figure.addEventListener("pointermove", move);
    this.figure.addEventListener("pointerup", end);
    this.figure.addEventListener("pointercancel", end);
    this.set(grip.state);
  }

  place(event) {
    const box = this.svg.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * this.width, event.clientY - box.top];
  }

  /** Give the page back. */
  close() {
    this.observer.disconnect();
    clearTimeout(this.saying);
  }
}
