// @ts-check
/** The builder of recipes: steps that are added, moved and removed, each with the form of its method's schema. */

import { el } from "./api.js";
import { SchemaForm } from "./schema-form.js";

const STAGES = ["search", "factorize", "prune", "train", "quantize"];

/** @typedef {{method: string, [parameter: string]: any}} Step */

export class Recipe {
  /**
   * @param {HTMLElement} place
   * @param {any[]} methods As `GET /v1/methods` lists them.
   * @param {{value: string, label: string}[]} models That a step can name.
   * @param {() => string[]} targets That are chosen now.
   * @param {() => void} changed
   */
  constructor(place, methods, models, targets, changed) {
    this.methods = new Map(methods.map((method) => [method.name, method]));
    this.models = models;
    this.targets = targets;
    this.changed = changed;
    /** @type {{method: any, form: SchemaForm, element: HTMLElement}[]} */
    this.steps = [];
    this.list = el("ol", { class: "recipe", "aria-label": "Steps of the recipe" });
    this.none = el("p", { class: "none" }, "No step yet: choose a preset above, or add a step.");
    place.append(this.none, this.list, this.adder());
  }

  /** Shows these steps in place of what there is. @param {Step[]} steps */
  load(steps) {
    this.steps = steps.filter((step) => this.methods.has(step.method)).map((step) => this.made(step));
    this.show();
  }

  /** The steps, without what is the default, unless `whole`. @param {boolean} [whole] @returns {Step[]} */
  read(whole) {
    return this.steps.map(({ method, form }) => ({ method: method.name, ...form.read(whole) }));
  }

  /** Data without which a step cannot run. @param {string} role */
  needing(role) {
    return this.steps.filter(({ method }) => method.needs.includes(role)).map(({ method }) => method.name);
  }

  /** Whether every step can go to this target. @param {string} target */
  reaches(target) {
    return this.steps.every(({ method }) => method.targets.includes(target));
  }

  /** @param {Step} step */
  made({ method: name, ...value }) {
    const method = this.methods.get(name);
    const options = { changed: this.changed, choices: { model_id: this.models }, remark: this.remark(method) };
    const form = new SchemaForm(method.parameters, value, options, ["method"]);
    const element = el("li", { class: "card step" });
    const step = { method, form, element };
    const number = el("span", { class: "faint number" });
    const buttons = [
      this.button("↑", `Move ${name} up`, () => this.move(step, -1)),
      this.button("↓", `Move ${name} down`, () => this.move(step, 1)),
      this.button("Remove", `Remove ${name}`, () => this.remove(step)),
    ];
    const title = el("h3", {}, number, " ", el("code", {}, name));
    element.append(el("div", { class: "head" }, title, el("div", { class: "actions" }, ...buttons)));
    element.append(el("p", { class: "hint" }, method.summary), form.element);
    return step;
  }

  /** What to say of a value that a chosen target cannot hold. @param {any} method */
  remark(method) {
    return (/** @type {string} */ name, /** @type {unknown} */ value) => {
      const without = this.targets().filter((target) => {
        const possible = method.possible[target]?.[name];
        return possible !== undefined && !possible.includes(value);
      });
      return without.length ? ` – not for ${without.join(", ")}` : "";
    };
  }

  /** @param {string} text @param {string} label @param {() => void} onclick */
  button(text, label, onclick) {
    return el("button", { type: "button", class: "quiet", "aria-label": label, onclick }, text);
  }

  /** @param {any} step @param {number} by */
  move(step, by) {
    const index = this.steps.indexOf(step);
    const to = index + by;
    if (to < 0 || to >= this.steps.length) return;
    this.steps.splice(index, 1);
    this.steps.splice(to, 0, step);
    this.show();
    const buttons = step.element.querySelectorAll(".head button");
    const again = buttons[by < 0 ? 0 : 1];
    (again.disabled ? buttons[by < 0 ? 1 : 0] : again).focus();
    this.changed();
  }

  /** @param {any} step */
  remove(step) {
    const index = this.steps.indexOf(step);
    this.steps.splice(index, 1);
    this.show();
    const next = this.steps[Math.min(index, this.steps.length - 1)];
    /** @type {HTMLElement} */ (next ? next.element.querySelector(".head button:last-child") : this.select).focus();
    this.changed();
  }

  show() {
    this.none.hidden = this.steps.length > 0;
    this.list.hidden = this.steps.length === 0;
    this.list.replaceChildren(...this.steps.map(({ element }) => element));
    this.steps.forEach(({ element }, index) => {
      /** @type {HTMLElement} */ (element.querySelector("h3 .number")).textContent = `${index + 1}.`;
      element.dataset.step = String(index);
      const [up, down] = /** @type {NodeListOf<HTMLButtonElement>} */ (element.querySelectorAll(".head button"));
      up.disabled = index === 0;
      down.disabled = index === this.steps.length - 1;
    });
  }

  adder() {
    const grouped = STAGES.map((stage) => {
      const ours = [...this.methods.values()].filter((method) => method.stage === stage);
      return el("optgroup", { label: stage }, ...ours.map(({ name }) => el("option", { value: name }, name)));
    });
    this.select = el("select", { id: "add-step" }, el("option", { value: "" }, "choose a method"), ...grouped);
    const about = el("p", { class: "hint", id: "add-hint" });
    this.select.setAttribute("aria-describedby", "add-hint");
    this.select.addEventListener("change", () => (about.textContent = this.methods.get(this.select.value)?.summary ?? ""));
    const add = el("button", { type: "button", onclick: () => this.add() }, "Add step");
    const label = el("label", { htmlFor: "add-step" }, "Add a step");
    return el("div", { class: "adder" }, el("div", { class: "field" }, label, this.select, about), add);
  }

  /** A step that changes weights goes in front of the quantization. */
  add() {
    const method = this.methods.get(this.select.value);
    if (!method) return this.select.focus();
    const quantized = this.steps.findIndex((step) => step.method.stage === "quantize");
    const at = method.stage === "quantize" || quantized < 0 ? this.steps.length : quantized;
    const step = this.made({ method: method.name });
    this.steps.splice(at, 0, step);
    this.show();
    this.select.value = "";
    this.select.dispatchEvent(new Event("change"));
    /** @type {HTMLElement | null} */ (step.element.querySelector("input, select, summary"))?.focus();
    this.changed();
  }
}
