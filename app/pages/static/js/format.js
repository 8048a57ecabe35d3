// @ts-check
/** Figures and times as people read them; app/pages/formats.py writes them alike. */

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];
const COUNTS = ["", " k", " M", " G", " T"];

/** @param {number} value @param {string[]} units @param {string} gap */
function scaled(value, units, gap) {
  let index = 0;
  while (value >= 999.5 && index < units.length - 1) {
    value /= 1000;
    index += 1;
  }
  const whole = value >= 999.5 || (index === 0 && Number.isInteger(value));
  return `${whole ? value.toFixed(0) : Number(value.toPrecision(3))}${gap}${units[index]}`;
}

/** Bytes: `12.3 MB`. @param {number | null | undefined} count */
export const bytes = (count) => (count == null ? "–" : scaled(count, UNITS, " "));

/** A number of things: `11.7 M`. @param {number | null | undefined} number */
export const count = (number) => (number == null ? "–" : scaled(number, COUNTS, ""));

/** A share of one: `12.5 %`. @param {number | null | undefined} share @param {number} [digits] */
export const percent = (share, digits = 1) => (share == null ? "–" : `${(100 * share).toFixed(digits)} %`);

/** @type {[number, number, string, string][]} */
const SPANS = [
  [86400, 3600, "d", "h"],
  [3600, 60, "h", "min"],
  [60, 1, "min", "s"],
];

/** `850 ms`, `12.3 s`, `4 min 5 s`, … @param {number | null | undefined} seconds */
export function duration(seconds) {
  if (seconds == null) return "–";
  if (seconds < 1) return `${(1000 * seconds).toFixed(0)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const whole = Math.round(seconds);
  for (const [larger, smaller, unit, part] of SPANS) {
    if (whole < larger) continue;
    const rest = Math.floor((whole % larger) / smaller);
    return `${Math.floor(whole / larger)} ${unit}${rest ? ` ${rest} ${part}` : ""}`;
  }
  return `${whole} s`;
}

/** A moment as this browser's place writes it. @param {string | Date} moment */
export const when = (moment) =>
  new Date(moment).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });

/** How long ago: `just now`, `5 min ago`; the date after a week. @param {string | Date} moment */
export function ago(moment) {
  const seconds = (Date.now() - new Date(moment).getTime()) / 1000;
  const [text, before, after] = seconds < 0 ? [-seconds, "in ", ""] : [seconds, "", " ago"];
  if (text < 45) return seconds < 0 ? "in a moment" : "just now";
  if (text < 3600) return `${before}${Math.max(1, Math.round(text / 60))} min${after}`;
  if (text < 86400) return `${before}${Math.round(text / 3600)} h${after}`;
  if (text < 7 * 86400) return `${before}${Math.round(text / 86400)} d${after}`;
  return new Date(moment).toLocaleDateString(undefined, { dateStyle: "medium" });
}

/** A tensor's shape: `N × 3 × 224`. @param {(number | string)[]} dims */
export const shape = (dims) => dims.join(" × ") || "scalar";
