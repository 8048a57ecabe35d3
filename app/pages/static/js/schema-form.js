// @ts-check
/**
 * Forms out of JSON Schemas, as pydantic writes them: one control for each property, nested objects as groups, rarely
 * needed ones folded. A form reads as what differs from the defaults, so that recipes stay short.
 */

import { el } from "./api.js";

/** Parameters that mean the same in every method and that few people change. */
const RARELY = new Set(
  ("layers optimizer weight_decay clip_norm patience batch_size round_to samples percentile avoid_saturation " +
    "symmetric_activations bias_correction granularity restarts iterations widths kernels depth objective confidence " +
    "learned_scale max_size_bytes max_latency_ms min_sqnr_db max_macs_ratio strict").split(" "),
);
let fields = 0;

/**
 * @typedef {object} Part A control, or a group of them.
 * @property {HTMLElement} element
 * @property {(whole?: boolean) => unknown} read What it says; undefined where that is the default, unless `whole`.
 * @property {boolean} [changed] Whether it did not begin with the default.
 *
 * @typedef {object} Options
 * @property {() => void} changed Is called after every input.
 * @property {Record<string, {value: string, label: string}[]>} [choices] Property -> what it can be chosen from.
 * @property {(name: string, value: unknown) => string} [remark] What to say of one value of an enumeration.
 * @property {Record<string, string>} [hints] Property -> said instead of the schema's description.
 */

/** A form for the properties of an object. */
export class SchemaForm {
  /**
   * @param {any} schema
   * @param {Record<string, any>} value
   * @param {Options} options
   * @param {string[]} [without] Properties that are not shown.
   */
  constructor(schema, value, options, without = []) {
    this.options = options;
    this.defs = schema.$defs ?? {};
    this.group = this.properties(schema, value, "", new Set(without));
    this.element = this.group.element;
    this.element.addEventListener("input", () => options.changed());
  }

  /** What differs from the defaults; or all that it says. @param {boolean} [whole] @returns {Record<string, any>} */
  read(whole) {
    return /** @type {any} */ (this.group.read(whole)) ?? {};
  }

  /**
   * @param {any} schema @param {Record<string, any>} value @param {string} path @param {Set<string>} without
   * @returns {Part}
   */
  properties(schema, value, path, without) {
    /** @type {[string, Part][]} */
    const parts = Object.entries(schema.properties ?? {})
      .filter(([name]) => !without.has(name))
      .map(([name, property]) => [name, this.property(name, property, value?.[name], `${path}/${name}`)]);
    const rare = path === "" ? parts.filter(([name, part]) => RARELY.has(name) && !part.changed) : [];
    const common = parts.filter((part) => !rare.includes(part));
    const element = el("div", { class: "stack" }, el("div", { class: "fields" }, ...common.map(([, part]) => part.element)));
    if (rare.length) {
      const more = el("div", { class: "fields" }, ...rare.map(([, part]) => part.element));
      element.append(common.length ? el("details", {}, el("summary", {}, `${rare.length} more`), more) : more);
    }
    const read = (/** @type {boolean} */ whole = false) => {
      const found = parts.map(([name, part]) => [name, part.read(whole)]).filter(([, one]) => one !== undefined);
      return found.length ? Object.fromEntries(found) : undefined;
    };
    return { element, read, changed: parts.some(([, part]) => part.changed) };
  }

  /** @param {string} name @param {any} schema @param {any} value @param {string} path @returns {Part} */
  property(name, schema, value, path) {
    const known = this.resolved(schema);
    if (known.properties) return this.nested(name, known, value, path);
    const field = new Field(name, known, path, this.options);
    const begin = value === undefined ? known.default : value;
    const control = controlOf(field, known, begin, this.options);
    field.put(control);
    const read = (/** @type {boolean} */ whole = false) => {
      const now = control.read();
      return !whole && same(now, known.default ?? null) ? undefined : now;
    };
    return { element: field.box, read, changed: value !== undefined && !same(value, known.default ?? null) };
  }

  /** @param {string} name @param {any} schema @param {any} value @param {string} path @returns {Part} */
  nested(name, schema, value, path) {
    const inside = this.properties(schema, value ?? {}, path, new Set());
    const box = el("fieldset", { class: "group", dataset: { path } }, el("legend", {}, titled(name)), hint(schema.description));
    if (!schema.nullable) {
      box.append(inside.element);
      return { element: box, read: inside.read, changed: inside.changed };
    }
    const byDefault = schema.default !== null;
    const begins = value === undefined ? byDefault : value !== null;
    const check = el("input", { type: "checkbox", checked: begins });
    const show = () => (inside.element.hidden = !check.checked);
    check.addEventListener("input", show);
    show();
    box.append(el("label", { class: "check" }, check, "use"), inside.element);
    const read = (/** @type {boolean} */ whole = false) => {
      if (!check.checked) return byDefault ? null : undefined;
      return inside.read(whole) ?? (byDefault ? undefined : {});
    };
    return { element: box, read, changed: begins !== byDefault || Boolean(inside.changed) };
  }

  /** Without references; `nullable` where null is allowed, `union` where there is more than one kind. @param {any} schema */
  resolved(schema) {
    const { $ref, anyOf, ...own } = schema;
    if ($ref) return { ...this.defs[$ref.split("/").pop()], ...own };
    if (!anyOf) return own;
    const kinds = anyOf.filter((/** @type {any} */ one) => one.type !== "null").map((/** @type {any} */ one) => this.resolved(one));
    const nullable = kinds.length < anyOf.length;
    return kinds.length === 1 ? { ...kinds[0], ...own, nullable } : { ...own, nullable, union: kinds };
  }
}

/** Label, control, hint and fault of one property. */
class Field {
  /** @param {string} name @param {any} schema @param {string} path @param {Options} options */
  constructor(name, schema, path, options) {
    this.name = name;
    this.id = `field-${(fields += 1)}`;
    this.hint = hint([options.hints?.[name] ?? schema.description, bounds(schema)].filter(Boolean).join(" "), `${this.id}-hint`);
    this.box = el("div", { class: "field", dataset: { path } });
  }

  /** @param {{element: HTMLElement, check?: boolean}} control */
  put({ element, check }) {
    const described = this.hint ? { "aria-describedby": this.hint.id } : {};
    for (const [attribute, value] of Object.entries(described)) element.setAttribute(attribute, value);
    const label = titled(this.name);
    if (element.tagName === "FIELDSET") element.prepend(el("legend", {}, label));
    else element.id = this.id;
    const parts = check
      ? [el("label", { class: "check" }, element, label)]
      : [element.tagName === "FIELDSET" ? null : el("label", { htmlFor: this.id }, label), element];
    this.box.append(...parts.filter(Boolean), ...(this.hint ? [this.hint] : []));
  }
}

/**
 * The control that takes values of this schema.
 * @param {Field} field @param {any} schema @param {any} value @param {Options} options
 * @returns {{element: HTMLElement, read: () => unknown, check?: boolean}}
 */
function controlOf(field, schema, value, options) {
  const choices = options.choices?.[field.name];
  if (choices) {
    const all = [{ value: "", label: "none" }, ...choices].map(({ value: one, label }) => [one || null, label]);
    const known = !value || all.some(([one]) => one === value);
    return select(known ? all : [...all, [value, String(value)]], value);
  }
  if (schema.enum || schema.const !== undefined) {
    const all = schema.enum ?? [schema.const];
    const told = all.map((/** @type {unknown} */ one) => [one, `${one}${options.remark?.(field.name, one) ?? ""}`]);
    return select([...(schema.nullable ? [[null, "as it suits"]] : []), ...told], value);
  }
  if (schema.type === "boolean" && schema.nullable) return select([[null, "as it suits"], [true, "yes"], [false, "no"]], value);
  if (schema.type === "boolean") {
    const element = el("input", { type: "checkbox", checked: Boolean(value) });
    return { element, read: () => element.checked, check: true };
  }
  if (schema.type === "array" && schema.items?.enum) return several(schema.items.enum, value ?? []);
  if (schema.type === "array" || schema.union) return listed(schema, value);
  if (schema.type === "object") return pairs(value ?? {});
  return line(schema, value);
}

/** @param {any[][]} choices Value and label of each. @param {unknown} value */
function select(choices, value) {
  const chosen = Math.max(0, choices.findIndex(([one]) => same(one, value ?? null)));
  const element = el("select", {}, ...choices.map(([, label], index) => el("option", { value: String(index) }, label)));
  element.value = String(chosen);
  return { element, read: () => choices[Number(element.value)]?.[0] };
}

/** @param {unknown[]} all @param {unknown[]} value */
function several(all, value) {
  const boxes = all.map((one) => el("input", { type: "checkbox", checked: value.includes(one) }));
  const labels = boxes.map((box, index) => el("label", { class: "check" }, box, String(all[index])));
  const element = el("fieldset", { class: "checks" }, ...labels);
  return { element, read: () => all.filter((_, index) => boxes[index].checked) };
}

/** One line for a list; words stay words where a word is allowed. @param {any} schema @param {any} value */
function listed(schema, value) {
  const array = schema.type === "array" ? schema : schema.union.find((/** @type {any} */ one) => one.type === "array");
  const words = (schema.union ?? []).map((/** @type {any} */ one) => one.const).filter((/** @type {any} */ one) => one !== undefined);
  const numeric = ["number", "integer"].includes((array?.items ?? array?.prefixItems?.[0])?.type);
  const text = Array.isArray(value) ? value.join(", ") : (value ?? "");
  const element = el("input", { value: String(text), placeholder: "separated by commas", autocomplete: "off", spellcheck: false });
  const read = () => {
    const typed = element.value.trim();
    if (typed === "") return schema.nullable ? null : [];
    if (words.includes(typed)) return typed;
    const items = typed.split(",").map((/** @type {string} */ one) => one.trim()).filter(Boolean);
    return numeric ? items.map(asNumber) : items;
  };
  return { element, read };
}

/** Lines of `key: value`. @param {Record<string, string>} value */
function pairs(value) {
  const text = Object.entries(value).map(([key, one]) => `${key}: ${one}`).join("\n");
  const element = el("textarea", { rows: 2, value: text, placeholder: "key: value", spellcheck: false });
  const read = () => {
    const lines = element.value.split("\n").filter((/** @type {string} */ one) => one.trim());
    return Object.fromEntries(lines.map((/** @type {string} */ one) => [one.split(":")[0].trim(), one.split(":").slice(1).join(":").trim()]));
  };
  return { element, read };
}

/** A number or text. @param {any} schema @param {any} value */
function line(schema, value) {
  const numeric = schema.type === "number" || schema.type === "integer";
  const props = numeric ? { type: "text", inputMode: schema.type === "integer" ? "numeric" : "decimal" } : { maxLength: schema.maxLength ?? -1 };
  const empty = schema.nullable ? "not set" : "";
  const element = el("input", { ...props, value: value ?? "", placeholder: empty, autocomplete: "off" });
  const read = () => {
    const typed = element.value.trim();
    if (typed === "") return schema.nullable || numeric ? null : "";
    return numeric ? asNumber(typed) : typed;
  };
  return { element, read };
}

/** A number; what is none stays text, and the service says what is wrong with it. @param {string} typed */
function asNumber(typed) {
  const number = Number(typed);
  return Number.isFinite(number) ? number : typed;
}

/** `weight_bits` -> `Weight bits`. @param {string} name */
export function titled(name) {
  const text = name.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Text with its `code` as such. @param {string | undefined} text @param {string} [id] */
function hint(text, id) {
  if (!text) return null;
  const pieces = (text.charAt(0).toUpperCase() + text.slice(1)).split(/`{1,2}([^`]+)`{1,2}/);
  return el("p", { class: "hint", id }, ...pieces.map((piece, index) => (index % 2 ? el("code", {}, piece) : piece)));
}

/** What numbers it takes, in words. @param {any} schema */
function bounds(schema) {
  const low = schema.minimum ?? schema.exclusiveMinimum;
  const high = schema.maximum ?? schema.exclusiveMaximum;
  const from = low === undefined ? "" : schema.minimum === undefined ? `above ${low}` : `${low} or more`;
  const to = high === undefined ? "" : schema.maximum === undefined ? `below ${high}` : `at most ${high}`;
  if (schema.minimum !== undefined && schema.maximum !== undefined) return `(${low} to ${high})`;
  return from || to ? `(${[from, to].filter(Boolean).join(", ")})` : "";
}

/**
 * Where `asked` says something that `shown` does not: paths, such as `limits.max_drop`. Null and absent are the same.
 * @param {any} asked @param {any} shown @param {string} [path] @returns {string[]}
 */
export function missing(asked, shown, path = "") {
  const inside = (/** @type {any} */ one) => one !== null && typeof one === "object" && !Array.isArray(one);
  if (!inside(asked)) return same(asked, shown) ? [] : [path];
  if (!inside(shown)) return Object.keys(asked).length ? [path] : [];
  return Object.entries(asked).flatMap(([name, value]) => missing(value, shown[name], path ? `${path}.${name}` : name));
}

/** @param {unknown} one @param {unknown} other */
function same(one, other) {
  return JSON.stringify(one ?? null) === JSON.stringify(other ?? null);
}
