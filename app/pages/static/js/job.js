// @ts-check
/** The page of one job: live while it runs, its charts, and what can be done to it. */

import { byId, el, rendered, request, root } from "./api.js";
import { drawCurves, drawLayers, drawPareto } from "./charts.js";
import { compare } from "./compare.js";
import { confirm } from "./dialogs.js";
import { duration, percent } from "./format.js";
import { notify, notifyError } from "./notices.js";
import { tellTimes } from "./shell.js";

const TERMINAL = ["succeeded", "failed", "canceled"];
const PHASES = ["reading", "compressing", "exporting", "measuring"];
const QUEUE_MS = 2000;
const DRAW_MS = 1000;
const RECONNECT_MS = 3000;
/** Lines of the log that are kept on the page. */
const MOST_LINES = 2000;

const id = byId("job-state").dataset.job ?? "";
const state = () => byId("job-state").dataset.state ?? "";

/** Whether what the server renders now is asked for, and whether it has to be once more. */
let asking = false;
let again = false;

/** Puts in what the server renders now; by one call at a time, so that no older answer comes last. */
async function refresh() {
  again = true;
  if (asking) return;
  asking = true;
  while (again) {
    again = false;
    const page = await rendered();
    if (page) show(page);
    else {
      await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS));
      again = true;
    }
  }
  asking = false;
  if (state() === "queued") void watchQueue();
  if (TERMINAL.includes(state()) && source) await end();
}

/** @param {Document} page */
function show(page) {
  for (const name of ["job-head", "job-state", "job-result"]) {
    const [old, fresh] = [byId(name), page.getElementById(name)];
    if (!fresh) continue;
    const focused = old.contains(document.activeElement);
    old.replaceWith(fresh);
    tellTimes(fresh);
    if (focused) byId("main").focus();
  }
  listen();
}

/** Charts of what the job has measured. */
async function showResult() {
  const places = /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-chart]"));
  const section = document.getElementById("compare");
  if (section) void compare(section).catch(notifyError);
  if (!places.length) return;
  const { metrics } = await request("GET", `/v1/jobs/${id}`);
  const draw = { layers: drawLayers, curves: drawCurves, pareto: drawPareto };
  for (const place of places) {
    const kind = /** @type {keyof typeof draw} */ (place.dataset.chart);
    const plot = /** @type {HTMLElement} */ (place.querySelector(".plot"));
    await draw[kind](plot, /** @type {any} */ (metrics[kind]));
  }
}

/** The events that are followed. @type {EventSource | null} */
let source = null;

/** Follows the job's events. They come from the first attempt on, however late this page was opened. */
function follow() {
  /** Of the attempt that runs. @type {Record<string, number[]>} */
  let curves = {};
  let [attempt, running, moved] = [0, false, false];
  /** Whether what comes is of the attempt that the page is about: a queued job has ended those before. */
  const current = () => running && attempt >= Number(byId("job-state").dataset.attempt) + Number(state() === "queued");
  const events = (source = new EventSource(`${root}/v1/jobs/${id}/events`));
  /** @param {string} type @param {(data: any) => void} act */
  const on = (type, act) => events.addEventListener(type, (event) => act(JSON.parse(/** @type {MessageEvent} */ (event).data)));
  on("log", ({ level, message }) => append(level === "info" ? message : `${level.toUpperCase()} ${message}`));
  on("progress", (data) => {
    if (!current()) return;
    if (!moved && state() === "queued") void refresh();
    moved = true;
    showProgress(data);
  });
  on("metric", ({ name, value }) => {
    if (!current() || !name.startsWith("training.") || typeof value !== "number") return;
    (curves[name.slice("training.".length)] ??= []).push(value);
    void showCurves(curves);
  });
  on("state", (data) => {
    append(`${data.state} (attempt ${data.attempt})`);
    attempt = data.attempt;
    running = data.state === "running";
    if (running) curves = {};
    // It may be of an attempt that is long over: what the server renders tells.
    if (data.state !== state() || TERMINAL.includes(data.state)) void refresh();
  });
  events.addEventListener("error", () => {
    if (events.readyState !== EventSource.CLOSED || source !== events) return; // it connects again by itself
    setTimeout(() => void request("GET", `/v1/jobs/${id}`).then(() => location.reload(), notifyError), RECONNECT_MS);
  });
}

/** The job is over, and the page shows so: nothing more comes, and what has come may have been cut off. */
async function end() {
  source?.close();
  source = null;
  const how = state();
  notify(`The job has ${how === "canceled" ? "been canceled" : how}.`, how === "failed" ? "bad" : "good");
  await Promise.all([showLog(), showResult()]).catch(notifyError);
}

async function showLog() {
  const text = await request("GET", `/v1/jobs/${id}/logs`);
  byId("log").textContent = text || "Nothing was logged.";
}

/** @param {{phase: string, progress: number, eta_s: number | null}} data */
function showProgress({ phase, progress, eta_s: left }) {
  const bar = document.getElementById("progress");
  if (!(bar instanceof HTMLProgressElement)) return;
  bar.value = progress;
  byId("percent").textContent = percent(progress, 0);
  byId("eta").textContent = left ? ` · about ${duration(left)} left` : "";
  const now = PHASES.indexOf(phase);
  document.querySelectorAll("[data-phase]").forEach((item, index) => {
    item.classList.toggle("done", index < now);
    if (index === now) item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
  });
}

/** Drawn as often as it can be read, not after every epoch. */
let drawing = false;

/** @param {Record<string, number[]>} curves */
async function showCurves(curves) {
  const figure = document.getElementById("live-curves");
  if (!figure || drawing) return;
  drawing = true;
  figure.hidden = false;
  await drawCurves(/** @type {HTMLElement} */ (figure.querySelector(".plot")), curves).catch(notifyError);
  await new Promise((resolve) => setTimeout(resolve, DRAW_MS));
  drawing = false;
}

/** @param {string} text */
function append(text) {
  const log = byId("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 30;
  log.append(el("span", {}, `${text}\n`));
  while (log.childElementCount > MOST_LINES) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

let watching = false;

/** While nothing happens to a queued job, its place in the queue does. */
async function watchQueue() {
  if (watching) return;
  watching = true;
  while (state() === "queued") {
    await new Promise((resolve) => setTimeout(resolve, QUEUE_MS));
    const job = await request("GET", `/v1/jobs/${id}`).catch(() => null);
    const place = document.getElementById("queue");
    if (!job || !place || job.state !== "queued") continue;
    const number = job.queue_position === 1 ? "next in the queue" : `no. ${job.queue_position} in the queue`;
    place.textContent = ` · ${job.queue_note ?? number}`;
  }
  watching = false;
}

/** What the buttons do. @type {Record<string, () => Promise<void>>} */
const ACTIONS = {
  async cancel() {
    const sure = await confirm("Cancel this job?", "Its worker stops; what it has done so far is kept for a retry.", "Cancel the job");
    if (!sure) return;
    await request("POST", `/v1/jobs/${id}:cancel`);
    await refresh();
  },
  async retry() {
    await request("POST", `/v1/jobs/${id}:retry`);
    location.reload();
  },
  async delete() {
    const text = "Its artifacts, metrics and log go with it. The model and the data stay.";
    if (!(await confirm("Delete this job?", text, "Delete the job"))) return;
    await request("DELETE", `/v1/jobs/${id}`);
    location.assign(`${root}/jobs`);
  },
};

function listen() {
  for (const button of document.querySelectorAll("[data-action]")) {
    button.addEventListener("click", () => void ACTIONS[button.getAttribute("data-action") ?? ""]().catch(notifyError));
  }
}

listen();
if (TERMINAL.includes(state())) Promise.all([showLog(), showResult()]).catch(notifyError);
else {
  follow();
  void watchQueue();
}
