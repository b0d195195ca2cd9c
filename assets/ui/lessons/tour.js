// The guided tour: one task at a time, it goes on when the learner has done it, and it can be left at any point.

export class Tour {
  /** bar: the server's element with the buttons and texts; sections by key in order; tasks: {key: words}. */
  constructor(bar, sections) {
    Object.assign(this, { bar, sections, step: -1 });
    this.task = bar.querySelector(".task");
    this.start = bar.querySelector(".start");
    this.leave = bar.querySelector(".leave");
    this.start.onclick = () => this.go(0);
    this.leave.onclick = () => this.end("");
    this.escape = (event) => event.key === "Escape" && this.step >= 0 && this.end("");
    document.addEventListener("keydown", this.escape);
    this.show();
  }

  /** A lesson says that its task was done. */
  done(key) {
    this.sections.find((one) => one.dataset.lesson === key)?.classList.add("done");
    if (this.step < 0 || this.sections[this.step].dataset.lesson !== key) return;
    clearTimeout(this.going);
    this.task.textContent = "Done. On to the next one.";
    this.bar.classList.add("pleased");
    this.going = setTimeout(() => this.go(this.step + 1), 1600);
  }

  go(step) {
    while (this.sections[step]?.classList.contains("done")) step += 1;
    if (step >= this.sections.length) return this.end("That was the tour. Explore shows all of this for a whole model.");
    this.step = step;
    this.show();
    const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.sections[step].scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
  }

  end(told) {
    clearTimeout(this.going);
    this.step = -1;
    this.show();
    if (told) this.task.textContent = told;
  }

  show() {
    const on = this.step >= 0;
    this.bar.classList.remove("pleased");
    this.bar.classList.toggle("on", on);
    this.start.hidden = on;
    this.leave.hidden = !on;
    this.task.textContent = on ? `${this.step + 1} of ${this.sections.length}: ${this.sections[this.step].dataset.task}` : this.bar.dataset.offer;
    this.sections.forEach((one, i) => one.classList.toggle("current", i === this.step));
  }

  /** Give the page back. */
  close() {
    clearTimeout(this.going);
    document.removeEventListener("keydown", this.escape);
  }
}
