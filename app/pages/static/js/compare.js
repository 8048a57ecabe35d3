// @ts-check
/** Size against quality of all jobs of one model; a job that is chosen shows its recipe, to be opened or run again. */

import { el, request, root } from "./api.js";
import { draw } from "./charts.js";
import { bytes, percent } from "./format.js";

const MOST = 200;

/**
 * One artifact of a job.
 * @typedef {{job: any, size: number, before: number, quality: number | null, passed: boolean | null}} Point
 */

/** @param {HTMLElement} section With the ids of model and job in its data. */
export async function compare(section) {
  const { model = "", job = "", targets = "" } = section.dataset;
  const place = /** @type {HTMLElement} */ (section.querySelector(".compare"));
  const query = `?model_id=${encodeURIComponent(model)}&state=succeeded&state=failed&limit=${MOST}`;
  const { items } = await request("GET", `/v1/jobs${query}`);
  const names = targets.split(" ").filter((name) => items.some((/** @type {any} */ one) => one.metrics?.artifacts?.[name]));
  const select = el("select", { id: "compare-target" }, ...names.map((name) => el("option", { value: name }, name)));
  const chart = el("div", { class: "plot", role: "img", "aria-label": "Size against quality; the table beside has the same" });
  const table = el("div");
  const panel = el("div", { class: "panel", "aria-live": "polite" });
  const field = el("div", { class: "field target" }, el("label", { htmlFor: "compare-target" }, "Target"), select);
  place.replaceChildren(...(names.length > 1 ? [field] : []), el("figure", { class: "chart" }, chart), el("div", { class: "stack" }, table, panel));
  const show = () => void view(select.value, items, job, chart, table, panel);
  select.addEventListener("change", show);
  show();
}

/**
 * @param {string} target @param {any[]} jobs @param {string} current
 * @param {any} chart @param {HTMLElement} table @param {HTMLElement} panel
 */
async function view(target, jobs, current, chart, table, panel) {
  const { points, name } = pointsOf(jobs, target);
  const float = points.find((point) => point.job.id === current) ?? points[0];
  /** @param {Point} point */
  const choose = (point) => panel.replaceChildren(card(point, target, name, current));
  table.replaceChildren(rows(points, name, current, choose));
  panel.replaceChildren();
  await draw(chart, (colors) => plot(points, float, name, current, colors));
  chart.removeAllListeners?.("plotly_click");
  chart.on("plotly_click", (/** @type {any} */ event) => {
    const id = event.points[0]?.customdata;
    const point = points.find((one) => one.job.id === id);
    if (point) choose(point);
  });
}

/** Quality is the metric where any job has one, else the likeness of the outputs. @param {any[]} jobs @param {string} target */
function pointsOf(jobs, target) {
  const made = jobs.filter((job) => job.metrics?.artifacts?.[target]);
  const metric = made.map((job) => job.metrics.artifacts[target].metric?.name).find(Boolean);
  const points = made.map((job) => {
    const [after, before] = [job.metrics.artifacts[target], job.metrics.baseline?.[target] ?? {}];
    const quality = metric ? (after.metric?.value ?? null) : (after.fidelity?.sqnr_db ?? null);
    return { job, size: after.size_bytes, before: before.size_bytes, float: before.metric?.value, quality, passed: kept(job, target) };
  });
  return { points, name: metric ?? "SQNR, dB" };
}

/** Whether the artifact for this target keeps its limits; null where it has none. @param {any} job @param {string} target */
function kept(job, target) {
  const checks = (job.gate?.checks ?? []).filter((/** @type {any} */ one) => one.target === target);
  return checks.length ? checks.every((/** @type {any} */ one) => one.passed) : null;
}

/** @param {string} name @param {number | null} value */
function told(name, value) {
  if (value === null) return "–";
  return name.includes("accuracy") ? percent(value, 2) : value.toPrecision(4);
}

/** @param {any[]} points @param {any} float @param {string} name @param {string} current @param {import("./charts.js").Colors} colors */
function plot(points, float, name, current, colors) {
  const shown = points.filter((point) => point.quality !== null);
  const trace = (/** @type {string} */ label, /** @type {any[]} */ some, /** @type {any} */ marker) => ({
    type: "scatter",
    mode: "markers",
    name: label,
    x: some.map((point) => point.size),
    y: some.map((point) => point.quality),
    customdata: some.map((point) => point.job.id),
    text: some.map((point) => `${point.job.name ?? point.job.id}<br>${methods(point.job)}`),
    hovertemplate: "%{text}<br>%{x:.3s}B<br>%{y:.4f}<extra></extra>",
    marker: { size: 12, line: { color: colors.surface, width: 1 }, ...marker },
  });
  const kinds = [
    trace("limits kept", shown.filter((one) => one.passed), { color: colors.good }),
    trace("no limits", shown.filter((one) => one.passed === null), { color: colors.accent }),
    trace("limits broken", shown.filter((one) => one.passed === false), { color: colors.bad, symbol: "x" }),
    trace("this job", shown.filter((one) => one.job.id === current), { size: 20, color: "rgba(0,0,0,0)", line: { color: colors.text, width: 2 } }),
  ].filter((one) => one.x.length);
  const original = float?.float === undefined || !float?.before ? [] : [
    { type: "scatter", mode: "markers", name: "float model", x: [float.before], y: [float.float], marker: { symbol: "diamond", size: 12, color: colors.faint }, hovertemplate: "float model<br>%{x:.3s}B<br>%{y:.4f}<extra></extra>" },
  ];
  const yaxis = { title: { text: name }, tickformat: name.includes("accuracy") ? ".2~%" : "" };
  return { traces: [...kinds, ...original], layout: { height: 320, hovermode: "closest", xaxis: { title: { text: "size" }, tickformat: ".2s", ticksuffix: "B", rangemode: "tozero" }, yaxis } };
}

/** @param {any[]} points @param {string} name @param {string} current @param {(point: any) => void} choose */
function rows(points, name, current, choose) {
  const body = [...points].sort((one, other) => one.size - other.size).map((point) => {
    const button = el("button", { type: "button", class: "link", onclick: () => choose(point) }, point.job.name ?? point.job.id);
    return el(
      "tr",
      { class: point.job.id === current ? "current" : "" },
      el("th", { scope: "row" }, button, point.job.id === current ? " (this one)" : null),
      el("td", { class: "number", dataset: { label: "Size" } }, bytes(point.size)),
      el("td", { class: "number", dataset: { label: name } }, told(name, point.quality)),
      el("td", { dataset: { label: "Limits" } }, point.passed === null ? "–" : point.passed ? "✓ kept" : "✗ broken"),
    );
  });
  const head = ["Job", "Size", name, "Limits"].map((text, index) => el("th", { scope: "col", class: index % 3 ? "number" : "" }, text));
  const table = el("table", {}, el("caption", { class: "hidden" }, "Jobs of this model by size"), el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body));
  return el("div", { class: "scrolls short", tabIndex: 0, role: "region", "aria-label": "Jobs of this model by size" }, table);
}

/** @param {any} point @param {string} target @param {string} name @param {string} current */
function card(point, target, name, current) {
  const { job } = point;
  const share = point.before ? `, ${percent(point.size / point.before)} of the float file` : "";
  const open = job.id === current ? null : el("a", { class: "button", href: `${root}/jobs/${job.id}` }, "Open the job");
  return el(
    "div",
    { class: "card" },
    el("h3", {}, job.name ?? job.id),
    el("p", { class: "faint" }, `${target}: ${bytes(point.size)}${share} · ${name} ${told(name, point.quality)}`),
    el("pre", { class: "recipe-json", tabIndex: 0 }, JSON.stringify(job.recipe, null, 1)),
    el("p", { class: "actions" }, el("a", { class: "button primary", href: `${root}/jobs/new?from=${job.id}` }, "Run again, or change it"), open),
  );
}

/** @param {any} job */
const methods = (job) => job.recipe.steps.map((/** @type {any} */ step) => step.method).join(" → ");
