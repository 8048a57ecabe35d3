// @ts-check
/** The page of a new job: the form, its request as JSON, and the estimate that follows every change. */

import { byId, el, request, root } from "./api.js";
import { Estimate } from "./estimate.js";
import * as faults from "./faults.js";
import { during } from "./forms.js";
import { notify, notifyError } from "./notices.js";
import { Recipe } from "./recipe.js";
import { SchemaForm, missing } from "./schema-form.js";
import { takeFiles } from "./upload.js";

const FILES = ["model_id", "calibration_dataset_id", "evaluation_dataset_id", "training_dataset_id"];
/** Fields of a request that have a place of their own, or that the pages do not offer. */
const ELSEWHERE = [...FILES, "recipe", "targets", "limits", "budget"];
const HINTS = {
  name: "For you; lists can be filtered by it.",
  tags: "One on each line; lists can be filtered by them.",
  seed: "The same seed gives the same result.",
  max_attempts: "How often faults of the service are tried again.",
  pending_s: "Seconds that it may wait for a worker.",
  run_s: "Seconds that one attempt may take.",
};
const DEFAULT_PRESET = "no_data";

class Page {
  /** @param {any} schema Of a job's request. @param {any[]} methods @param {any[]} targets @param {any[]} presets */
  constructor(schema, methods, targets, presets) {
    this.form = /** @type {HTMLFormElement} */ (byId("new-job"));
    this.schema = schema;
    this.presets = presets;
    this.offered = targets;
    this.changed = () => this.update();
    const models = [...byId("model_id").options].filter((one) => one.value).map((one) => ({ value: one.value, label: one.text }));
    this.showTargets();
    this.recipe = new Recipe(byId("recipe"), methods, models, () => this.targets(), this.changed);
    this.showPresets();
    this.estimate = new Estimate(byId("estimate"), (found) => this.misplaced(found));
    this.json = /** @type {HTMLTextAreaElement} */ (byId("json"));
    for (const id of FILES) byId(id).addEventListener("change", this.changed);
    byId("apply").addEventListener("click", () => this.apply());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.start();
    });
    for (const noun of /** @type {("models" | "datasets")[]} */ (["models", "datasets"])) this.upload(noun);
  }

  /** Shows a request. @param {any} body */
  load(body) {
    for (const id of FILES) if (id in body) this.choose(id, body[id]);
    for (const box of this.boxes()) box.checked = (body.targets ?? []).includes(box.value);
    this.recipe.load(this.steps(body.recipe));
    const { limits, ...options } = this.schema.properties;
    const resolved = limits.$ref ? this.schema.$defs[limits.$ref.split("/").pop()] : limits;
    const asked = { changed: this.changed, hints: HINTS };
    this.limits = new SchemaForm({ ...resolved, $defs: this.schema.$defs }, body.limits ?? {}, asked);
    this.options = new SchemaForm({ ...this.schema, properties: options }, body, asked, ELSEWHERE);
    byId("limits").replaceChildren(this.limits.element);
    byId("options").replaceChildren(this.options.element);
    for (const [form, before] of [[this.limits, "/limits"], [this.options, ""]]) {
      for (const box of /** @type {SchemaForm} */ (form).element.querySelectorAll("[data-path]")) {
        /** @type {HTMLElement} */ (box).dataset.pointer = before + /** @type {HTMLElement} */ (box).dataset.path;
      }
    }
    this.update();
  }

  /** The steps of a recipe or preset. @param {any} recipe @returns {any[]} */
  steps(recipe) {
    const preset = this.presets.find(({ name }) => `preset:${name}` === recipe);
    return (preset ? preset.recipe : recipe)?.steps ?? [];
  }

  /** Shows a request in place of what there is, and tells what of it the form has no place for. @param {any} body @returns {string[]} */
  show(body) {
    this.load({ ...Object.fromEntries(FILES.map((name) => [name, null])), ...body });
    const { recipe, targets, ...asked } = body;
    const shown = { ...this.read(), ...this.options?.read(true), limits: this.limits?.read(true) };
    const steps = this.steps(recipe);
    return [
      ...missing(asked, shown),
      ...(targets ?? []).filter((/** @type {string} */ one) => !this.targets().includes(one)).map((/** @type {string} */ one) => `the target ${one}`),
      ...(typeof recipe === "string" ? (steps.length ? [] : [`the recipe ${recipe}`]) : missing({ ...recipe, steps: null }, {}, "recipe")),
      ...missing({ ...steps }, { ...this.recipe.read(true) }, "recipe.steps"),
    ];
  }

  /** The request that the form makes. */
  read() {
    const files = FILES.map((id) => [id, byId(id).value]).filter(([, value]) => value);
    const limits = this.limits?.read() ?? {};
    return {
      ...Object.fromEntries(files),
      recipe: { steps: this.recipe.read() },
      targets: this.targets(),
      ...(Object.keys(limits).length ? { limits } : {}),
      ...this.options?.read(),
    };
  }

  targets() {
    return this.boxes().filter((box) => box.checked).map((box) => box.value);
  }

  /** @returns {HTMLInputElement[]} */
  boxes() {
    return [...byId("targets").querySelectorAll("input")];
  }

  /** Whatever follows from what the form says now. */
  update() {
    const body = this.read();
    if (document.activeElement !== this.json) this.json.value = JSON.stringify(body, null, 2);
    for (const place of this.form.querySelectorAll("[data-needing]")) {
      const role = /** @type {HTMLElement} */ (place).dataset.needing?.replace("_dataset_id", "") ?? "";
      const needing = this.recipe.needing(role);
      place.replaceChildren(...(needing.length ? [el("strong", {}, `Needed by ${needing.join(", ")}.`)] : []));
    }
    for (const box of this.boxes()) {
      const remark = /** @type {HTMLElement} */ (box.closest("label")).querySelector(".reach");
      if (remark) remark.textContent = this.recipe.reaches(box.value) ? "" : "This recipe cannot go there.";
    }
    const steps = JSON.stringify(body.recipe.steps);
    for (const radio of byId("presets").querySelectorAll("input")) radio.checked = radio.dataset.steps === steps;
    this.estimate.ask(body);
  }

  showTargets() {
    const choices = this.offered.map((target) => {
      const box = el("input", { type: "checkbox", value: target.name, disabled: !target.offered });
      box.addEventListener("change", this.changed);
      const state = target.offered ? target.compute.join(", ") : "no worker offers it now";
      return el(
        "label",
        { class: "choice" },
        box,
        el("span", {}, el("strong", {}, target.name), ` ${target.artifact}`, el("span", { class: "hint" }, state), el("span", { class: "fault reach" })),
      );
    });
    byId("targets").replaceChildren(...choices);
  }

  /** Presets are compared with what the builder makes of them: defaults that they spell out are left away there. */
  showPresets() {
    const choices = this.presets.map(({ name, summary, recipe }) => {
      this.recipe.load(recipe.steps);
      const steps = JSON.stringify(this.recipe.read());
      const radio = el("input", { type: "radio", name: "preset", value: name, dataset: { steps } });
      radio.addEventListener("change", () => {
        this.recipe.load(recipe.steps);
        this.update();
      });
      return el("label", { class: "choice" }, radio, el("span", {}, el("strong", {}, name.replaceAll("_", " ")), el("span", { class: "hint" }, summary)));
    });
    byId("presets").append(...choices);
  }

  /** @param {string} id @param {string | null} value */
  choose(id, value) {
    const select = byId(id);
    if (value && ![...select.options].some((one) => one.value === value)) select.append(el("option", { value }, value));
    select.value = value ?? "";
  }

  /** A file that was uploaded here can be chosen at once. @param {"models" | "datasets"} noun */
  upload(noun) {
    const place = /** @type {HTMLElement} */ (this.form.querySelector(`[data-upload="${noun}"]`));
    const ids = noun === "models" ? FILES.slice(0, 1) : FILES.slice(1);
    takeFiles(place, {
      noun,
      made: (item) => {
        for (const id of ids) byId(id).append(el("option", { value: item.id }, item.name));
        const guess = noun === "models" ? ids[0] : ids.find((id) => item.name.toLowerCase().includes(id.slice(0, 4)));
        if (guess && !byId(guess).value) byId(guess).value = item.id;
        this.update();
      },
      checked: () => this.update(),
    });
  }

  apply() {
    const [before, text] = [this.read(), this.json.value];
    try {
      const body = JSON.parse(text);
      if (typeof body !== "object" || Array.isArray(body)) throw new Error("a request is a JSON object");
      const lost = this.show(body);
      if (lost.length) throw new Error(`the form has no place for ${lost.join(", ")}`);
      byId("json-fault").replaceChildren();
      notify("The form shows the JSON now");
    } catch (error) {
      this.show(before);
      this.json.value = text;
      byId("json-fault").replaceChildren(el("span", { class: "fault", role: "alert" }, String(error)));
    }
  }

  /** @param {faults.Fault[]} found @returns {faults.Fault[]} */
  misplaced(found) {
    return faults.place(this.form, found);
  }

  async start() {
    try {
      const body = this.read();
      await during(this.form, async () => {
        try {
          const job = await request("POST", "/v1/jobs", body);
          location.assign(`${root}/jobs/${job.id}`);
        } catch (/** @type {any} */ error) {
          if (!error.errors?.length) throw error;
          this.estimate.refused(error);
          const first = /** @type {HTMLElement | null} */ (this.form.querySelector('[aria-invalid="true"]'));
          (first ?? byId("estimate-title")).focus();
        }
      });
    } catch (error) {
      notifyError(error);
    }
  }
}

/** What an earlier job asked for. @param {string} id */
async function earlier(id) {
  const job = await request("GET", `/v1/jobs/${id}`);
  const named = [...FILES, "recipe", "targets", "limits", "compute", "priority", "max_attempts", "seed", "name", "tags", "timeouts"];
  return Object.fromEntries(named.map((name) => [name, job[name]]));
}

/** The schema of a job's request, as the API publishes it. */
async function requestSchema() {
  const openapi = await request("GET", "/openapi.json");
  return openapi.paths["/v1/jobs"].post.requestBody.content["application/json"].schema;
}

async function main() {
  const source = byId("new-job").dataset.source;
  const [schema, methods, targets, presets, before] = await Promise.all([
    requestSchema(),
    request("GET", "/v1/methods"),
    request("GET", "/v1/targets"),
    request("GET", "/v1/presets"),
    source ? earlier(source) : null,
  ]);
  const page = new Page(schema, methods.items, targets.items, presets.items);
  const first = targets.items.find((/** @type {any} */ one) => one.name === "onnxruntime" && one.offered) ?? targets.items.find((/** @type {any} */ one) => one.offered);
  if (!before) page.load({ recipe: `preset:${DEFAULT_PRESET}`, targets: first ? [first.name] : [] });
  const lost = before ? page.show(before) : [];
  if (lost.length) notify(`The form has no place for ${lost.join(", ")}: that of the earlier job is left out.`, "bad");
  page.form.dataset.ready = "true";
}

main().catch(notifyError);
