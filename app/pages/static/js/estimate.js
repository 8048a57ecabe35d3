// @ts-check
/** What a job will come to, asked for anew a moment after each change of the form. */

import { ApiError, el, request } from "./api.js";
import { bytes, duration } from "./format.js";

const PAUSE_MS = 350;
const CHECKING_MS = 1500;

export class Estimate {
  /**
   * @param {HTMLElement} place
   * @param {(faults: import("./faults.js").Fault[]) => import("./faults.js").Fault[]} placed Shows faults at their
   *   controls, and returns the others.
   */
  constructor(place, placed) {
    this.place = place;
    this.placed = placed;
    /** @type {AbortController | undefined} */
    this.running = undefined;
    this.timer = 0;
  }

  /** @param {any} body A job's request, as far as it goes. */
  ask(body) {
    clearTimeout(this.timer);
    this.running?.abort();
    const missing = [!body.model_id && "a model", !body.targets.length && "a target", !body.recipe.steps.length && "a step or preset"];
    const todo = missing.filter(Boolean);
    if (todo.length) {
      this.placed([]);
      this.show(el("p", { class: "faint" }, `Still to choose: ${todo.join(", ")}.`));
      return;
    }
    this.timer = setTimeout(() => void this.send(body), PAUSE_MS);
  }

  /** @param {any} body */
  async send(body) {
    const running = (this.running = new AbortController());
    this.place.setAttribute("aria-busy", "true");
    try {
      const found = await request("POST", "/v1/jobs:estimate", body, {}, running.signal);
      this.placed([]);
      this.show(...figures(found));
    } catch (error) {
      if (running.signal.aborted) return;
      if (error instanceof ApiError && error.code === "inputs_checking") {
        this.show(el("p", { class: "faint" }, "The model or its data is being checked; the estimate follows. You can start the job already."));
        this.timer = setTimeout(() => void this.send(body), CHECKING_MS);
      } else this.refused(error);
    } finally {
      if (this.running === running) this.place.removeAttribute("aria-busy");
    }
  }

  /** @param {unknown} error */
  refused(error) {
    const known = error instanceof ApiError ? error : new ApiError(0, { detail: String(error) });
    const left = this.placed(known.errors);
    const count = known.errors.length;
    const head = count ? `${count === 1 ? "One thing is" : `${count} things are`} not right yet` : known.detail;
    const where = count > left.length ? el("p", { class: "faint" }, "Marked at the fields in question.") : null;
    const list = left.length ? el("ul", {}, ...left.map((one) => el("li", {}, one.detail))) : null;
    this.show(el("div", { class: "callout warn" }, el("p", {}, el("strong", {}, head)), where, list));
  }

  /** @param {...Node} parts */
  show(...parts) {
    this.place.replaceChildren(...parts);
  }
}

/** @param {any} found */
function figures(found) {
  const targets = Object.entries(found.targets);
  const sizes = targets.length > 1 ? targets.flatMap(([name, size]) => row(name, bytes(size))) : [];
  const notes = found.notes.map((/** @type {string} */ note) => el("li", {}, note));
  return [
    el(
      "dl",
      { class: "facts" },
      ...row(targets.length > 1 ? "Size, together" : "Size", el("span", { class: "figure" }, bytes(found.size_bytes))),
      ...sizes,
      ...row("Time", el("span", { class: "figure" }, duration(found.run_s))),
      ...row("Memory", el("span", { class: "figure" }, bytes(found.peak_memory_bytes))),
    ),
    found.fits
      ? el("p", { class: "good-text" }, "✓ a live worker has room for it")
      : el("p", { class: "bad-text" }, "✗ no live worker has so much memory"),
    el("details", {}, el("summary", {}, "What it rests on"), el("ul", { class: "hint" }, ...notes)),
  ];
}

/** @param {string} name @param {Node | string} value */
const row = (name, value) => [el("dt", {}, name), el("dd", {}, value)];
