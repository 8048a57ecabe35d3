// @ts-check
/** Charts by plotly, which is loaded when the first one is drawn; in the colours of the page, dark and light. */

import { el } from "./api.js";

/** @type {Promise<any> | undefined} */
let library;
/** Charts that are shown, to be drawn anew when the colours change. @type {Map<Element, () => void>} */
const drawn = new Map();

/** @returns {Promise<any>} */
export function plotly() {
  library ??= new Promise((resolve, reject) => {
    const src = new URL("../vendor/plotly.min.js", import.meta.url).href;
    const script = el("script", { src });
    script.addEventListener("load", () => resolve(/** @type {any} */ (window).Plotly));
    script.addEventListener("error", () => reject(new Error("the library of the charts does not load")));
    document.head.append(script);
  });
  return library;
}

/**
 * Draws into `place`, and again when the page turns dark or light.
 * @param {HTMLElement} place
 * @param {(colors: Colors) => {traces: any[], layout?: any}} make
 * @returns {Promise<any>} The chart, to listen at.
 */
export async function draw(place, make) {
  const Plotly = await plotly();
  const show = () => {
    if (!place.isConnected) return drawn.delete(place);
    const colors = colorsNow();
    const { traces, layout } = make(colors);
    return Plotly.react(place, traces, themed(colors, layout ?? {}), { displayModeBar: false, responsive: true });
  };
  drawn.set(place, show);
  await show();
  return place;
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach((show) => show()));

/** @typedef {Record<"text" | "faint" | "line" | "surface" | "accent" | "good" | "bad" | "warn" | "sunken", string>} Colors */

/** @returns {Colors} */
function colorsNow() {
  const style = getComputedStyle(document.documentElement);
  const names = ["text", "faint", "line", "surface", "accent", "good", "bad", "warn", "sunken"];
  return /** @type {Colors} */ (Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()])));
}

/** @param {Colors} colors @param {any} layout */
function themed(colors, layout) {
  const axis = { gridcolor: colors.line, linecolor: colors.line, zeroline: false, automargin: true, fixedrange: true, title: { standoff: 10 }, tickfont: { color: colors.faint } };
  const axes = Object.keys(layout).filter((name) => /^[xy]axis\d*$/.test(name));
  const all = Object.fromEntries([...new Set(["xaxis", "yaxis", ...axes])].map((name) => [name, { ...axis, ...layout[name], title: { ...axis.title, ...layout[name]?.title } }]));
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colors.text },
    margin: { l: 8, r: 12, t: 28, b: 8 },
    legend: { orientation: "h", y: 1.12, x: 0, font: { color: colors.text } },
    hoverlabel: { bgcolor: colors.surface, bordercolor: colors.line, font: { color: colors.text } },
    dragmode: false,
    ...layout,
    ...all,
  };
}

/** Figures of layers that are drawn, side by side: key and title. @type {[string, string][]} */
const PANELS = [
  ["share", "share of size"],
  ["bits", "bits"],
  ["sqnr_db", "SQNR of weights, dB"],
  ["output_sqnr_db", "SQNR of output, dB"],
  ["sparsity", "zeros"],
  ["relative_error", "relative error"],
];
const ROW_PX = 20;
const PANEL_PX = 280;
const NARROW_PX = 520;
const MOST_PANELS = 4;

/** @param {HTMLElement} place @param {Record<string, any>[]} layers */
export function drawLayers(place, layers) {
  const narrow = place.clientWidth < NARROW_PX;
  const there = PANELS.filter(([key]) => layers.some((row) => typeof row[key] === "number")).slice(0, narrow ? 2 : MOST_PANELS);
  const names = layers.map((row) => row.name);
  place.classList.add("rows-plot");
  return draw(place, (colors) => {
    const hues = [colors.accent, colors.warn, colors.good, colors.faint];
    const traces = there.map(([key, title], index) => ({
      type: "bar",
      orientation: "h",
      y: names,
      x: layers.map((row) => row[key] ?? null),
      xaxis: `x${index ? index + 1 : ""}`,
      yaxis: "y",
      marker: { color: hues[index] },
      name: title,
      hovertemplate: `%{y}<br>${title}: %{x:.4g}<extra></extra>`,
    }));
    const width = 1 / Math.max(there.length, 1);
    const axes = there.map(([key, title], index) => [
      `xaxis${index ? index + 1 : ""}`,
      {
        domain: [index * width + (index ? 0.02 : 0), (index + 1) * width - 0.02],
        title: { text: title, font: { size: 11 } },
        side: "top",
        nticks: 4,
        tickformat: key === "share" || key === "sparsity" ? ".0%" : "",
      },
    ]);
    const height = 70 + ROW_PX * layers.length;
    const yaxis = { autorange: "reversed", type: "category", gridcolor: "rgba(0,0,0,0)" };
    return { traces, layout: { ...Object.fromEntries(axes), yaxis, height, showlegend: false, bargap: 0.35, margin: { l: 8, r: 8, t: 48, b: 8 } } };
  });
}

/** @param {HTMLElement} place @param {Record<string, number[]>} curves Name -> one value per epoch. */
export function drawCurves(place, curves) {
  const scores = Object.keys(curves).filter((name) => name.endsWith("accuracy"));
  return draw(place, (colors) => {
    const trace = (/** @type {string} */ name) => ({
      type: "scatter",
      mode: curves[name].length > 30 ? "lines" : "lines+markers",
      x: curves[name].map((_, index) => index + 1),
      y: curves[name],
      name: name.replaceAll("_", " "),
      xaxis: scores.includes(name) ? "x2" : "x",
      yaxis: scores.includes(name) ? "y2" : "y",
      line: { color: name.endsWith("accuracy") ? colors.good : colors.accent, dash: name.startsWith("validation") ? "dot" : "solid", width: 2 },
    });
    const longest = Math.max(...Object.values(curves).map((one) => one.length));
    const x = { title: { text: "epoch" }, dtick: Math.max(1, Math.ceil(longest / 8)) };
    const loss = { title: { text: "loss" } };
    if (!scores.length) return { traces: Object.keys(curves).map(trace), layout: { xaxis: x, yaxis: loss, height: PANEL_PX } };
    const values = scores.flatMap((name) => curves[name]);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const room = Math.max((high - low) / 10, 0.005);
    const score = { title: { text: "accuracy" }, tickformat: ".2~%", range: [low - room, Math.min(high + room, 1.002)] };
    // Below each other where there is no room beside.
    const narrow = place.clientWidth < NARROW_PX;
    const layout = {
      xaxis: { ...x, domain: narrow ? [0, 1] : [0, 0.44] },
      xaxis2: { ...x, domain: narrow ? [0, 1] : [0.56, 1], anchor: "y2" },
      yaxis: { ...loss, domain: narrow ? [0.62, 1] : [0, 1] },
      yaxis2: { ...score, anchor: "x2", domain: narrow ? [0, 0.38] : [0, 1] },
      height: narrow ? 2 * PANEL_PX : PANEL_PX,
    };
    return { traces: Object.keys(curves).map(trace), layout };
  });
}

/** @param {HTMLElement} place @param {any[]} rows `metrics.pareto` */
export function drawPareto(place, rows) {
  return draw(place, (colors) => ({
    traces: [
      {
        type: "scatter",
        mode: "lines+markers",
        x: rows.map((row) => row.macs),
        y: rows.map((row) => row.metric?.value),
        text: rows.map((row) => `${row.parameters} parameters`),
        line: { color: colors.line },
        marker: { size: 11, color: rows.map((row) => (row.chosen ? colors.accent : colors.surface)), line: { color: colors.accent, width: 2 } },
        hovertemplate: "%{x:.3s} MACs<br>%{y:.4f}<br>%{text}<extra></extra>",
      },
    ],
    layout: { height: 300, showlegend: false, xaxis: { title: { text: "multiply-accumulates" } }, yaxis: { title: { text: rows[0]?.metric?.name ?? "metric" } } },
  }));
}
