// The lessons of the Learn tab come to life: every <section data-lesson> of `root` gets its widget, the bar above them the tour.

import * as adapters from "./adapters.js";
import * as budget from "./budget.js";
import { Frame } from "./frame.js";
import * as groups from "./groups.js";
import * as levels from "./levels.js";
import * as saliency from "./saliency.js";
import * as talk from "./talk.js";
import { Tour } from "./tour.js";
import * as travel from "./travel.js";

export const LESSONS = Object.fromEntries([levels, groups, saliency, travel, adapters, budget, talk].map((one) => [one.key, one]));

/** fetchMaterial(source) asks the server for "kept" or "selected" weights; the answer arrives through `receive`. Returns {receive, close}. */
export function start(root, fetchMaterial) {
  const waiting = new Map(), cached = new Map(), frames = new Map();
  const sections = [...root.querySelectorAll("section[data-lesson]")], tour = new Tour(root.querySelector(".salq-tour"), sections);

  const give = (frame, source) => {
    const { material, told } = cached.get(source), lacks = material && frame.lesson.lacks ? frame.lesson.lacks(material) : "";
    if (material && !lacks) return frame.use(material, told, source);
    frame.wantsReal = false;
    frame.note.textContent = lacks || told;
  };
  const ask = (source, frame) => {
    if (source === "kept" && cached.has(source)) return give(frame, source);
    waiting.set(source, [...(waiting.get(source) || []), frame]);
    fetchMaterial(source);
  };
  for (const section of sections) {
    const lesson = LESSONS[section.dataset.lesson];
    frames.set(lesson.key, new Frame(section, lesson, { ask, onDone: (key) => tour.done(key) }));
  }
  root.classList.add("ready");
  root.salqFrames = frames;
  return {
    receive(answer) {
      if (!answer || !answer.source) return;
      cached.set(answer.source, answer);
      for (const frame of waiting.get(answer.source) || []) give(frame, answer.source);
      waiting.delete(answer.source);
    },
    close() {
      frames.forEach((frame) => frame.close());
      tour.close();
    },
  };
}
