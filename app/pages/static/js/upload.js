// @ts-check
/**
 * Files into models and datasets: dropped or chosen, sent by tus, which goes on where it was after a cut or a reload,
 * and watched until their check is over. The markup is `parts.upload` of the templates.
 */

import "../vendor/tus.min.js";
import { ApiError, el, request, root } from "./api.js";
import { bytes, duration } from "./format.js";
import { notify } from "./notices.js";

/** @type {any} */
const tus = /** @type {any} */ (window).tus;
const AT_ONCE = 3;
const CHECK_MS = 700;
const RETRIES_MS = [0, 1000, 3000, 5000, 10_000, 20_000];
const TEXTS = [".jsonl", ".txt"];

/**
 * @typedef {object} Options
 * @property {"models" | "datasets"} noun
 * @property {(file: File) => Record<string, unknown>} [fields] Fields of the POST that differ from what the file tells.
 * @property {(item: any) => void} [made] Is told of a model or dataset once it is there (`checking`).
 * @property {(item: any) => void} [checked] Is told of it once it is `ready` or `rejected`.
 */

/**
 * Takes files that are dropped on `place` or chosen in its input.
 * @param {HTMLElement} place
 * @param {Options} options
 */
export function takeFiles(place, options) {
  const drop = /** @type {HTMLElement} */ (place.querySelector(".drop"));
  const input = /** @type {HTMLInputElement} */ (place.querySelector("input[type=file]"));
  const list = /** @type {HTMLElement} */ (place.querySelector(".uploads"));
  /** @type {(() => Promise<void>)[]} */
  const waiting = [];
  let busy = 0;

  async function next() {
    const work = busy < AT_ONCE ? waiting.shift() : undefined;
    if (!work) return;
    busy += 1;
    await work().finally(() => (busy -= 1));
    void next();
  }
  /** @param {Iterable<File>} files */
  function take(files) {
    for (const file of files) {
      const transfer = new Transfer(file, options);
      list.querySelector(`[data-file="${CSS.escape(`${file.name} ${file.size}`)}"]`)?.remove();
      list.prepend(transfer.row);
      waiting.push(() => transfer.run());
      void next();
    }
  }
  input.addEventListener("change", () => {
    take(input.files ?? []);
    input.value = "";
  });
  take(input.files ?? []); // chosen before this script was there
  input.value = "";
  onDrop(drop, take);
  void showUnfinished(list, options.noun);
}

/** @param {HTMLElement} drop @param {(files: Iterable<File>) => void} take */
function onDrop(drop, take) {
  // A file dropped beside the place would otherwise replace the page.
  for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());
  drop.addEventListener("dragenter", () => drop.classList.add("over"));
  drop.addEventListener("dragover", () => drop.classList.add("over"));
  drop.addEventListener("dragleave", (event) => {
    if (!drop.contains(/** @type {Node | null} */ (event.relatedTarget))) drop.classList.remove("over");
  });
  drop.addEventListener("drop", (event) => {
    drop.classList.remove("over");
    take(event.dataTransfer?.files ?? []);
  });
}

/** Uploads that a reload or a closed tab left behind. @param {HTMLElement} list @param {string} noun */
async function showUnfinished(list, noun) {
  for (const kept of await tus.defaultOptions.urlStorage.findAllUploads()) {
    if (kept.metadata?.noun !== noun || !kept.uploadUrl?.startsWith(location.origin)) continue;
    const row = el(
      "li",
      { dataset: { file: `${kept.metadata.filename} ${kept.size}` } },
      el("span", { class: "name" }, el("strong", {}, kept.metadata.filename), ` ${bytes(kept.size)} – not finished. `),
      el("button", { type: "button", class: "quiet", onclick: forget }, "Forget"),
      el("p", { class: "hint" }, "Choose or drop the same file again: what has arrived is not sent twice."),
    );
    async function forget() {
      row.remove();
      await tus.defaultOptions.urlStorage.removeUpload(kept.urlStorageKey);
      await tus.Upload.terminate(kept.uploadUrl).catch(() => undefined);
    }
    list.append(row);
  }
}

/** One file on its way, and its row. */
class Transfer {
  /** @param {File} file @param {Options} options */
  constructor(file, options) {
    this.file = file;
    this.options = options;
    this.bar = el("progress", { max: 1, value: 0, "aria-label": `Upload of ${file.name}` });
    this.status = el("span", { class: "faint" }, "waits");
    this.button = el("button", { type: "button", class: "quiet", "aria-label": `Cancel the upload of ${file.name}` }, "Cancel");
    this.button.addEventListener("click", () => void this.cancel());
    const name = el("span", { class: "name" }, el("strong", {}, file.name), " ", this.status);
    this.row = el("li", {}, name, this.button, this.bar);
    this.canceled = false;
    /** @type {any} */
    this.upload = null;
  }

  /** Sends it, makes a model or dataset of it, and watches its check. Never rejects. */
  async run() {
    if (this.canceled) return;
    try {
      await this.send();
      const item = await this.make();
      this.options.made?.(item);
      await this.watch(item);
    } catch (error) {
      if (!this.canceled) this.fail(error);
    }
  }

  /** @returns {Promise<void>} */
  async send() {
    const started = performance.now();
    /** @type {number | null} */
    let first = null;
    const sent = new Promise((resolve, reject) => {
      this.upload = new tus.Upload(this.file, {
        endpoint: `${root}/v1/uploads`,
        metadata: { filename: this.file.name, noun: this.options.noun },
        retryDelays: RETRIES_MS,
        removeFingerprintOnSuccess: false, // only once it is a model or dataset
        onShouldRetry: (/** @type {any} */ error) => retriable(error?.originalResponse?.getStatus?.() ?? 0),
        onError: reject,
        onSuccess: resolve,
        onProgress: (/** @type {number} */ now, /** @type {number} */ total) => {
          first ??= now;
          const rate = (now - first) / Math.max(0.2, (performance.now() - started) / 1000);
          this.progress(now, total, rate);
        },
      });
    });
    const earlier = await this.upload.findPreviousUploads();
    const ours = earlier.filter((/** @type {any} */ one) => one.metadata?.noun === this.options.noun);
    if (ours.length) this.upload.resumeFromPreviousUpload(ours[ours.length - 1]);
    this.upload.start();
    await sent;
  }

  /** @param {number} now @param {number} total @param {number} rate */
  progress(now, total, rate) {
    this.bar.value = total ? now / total : 1;
    const left = rate > 0 && now < total ? ` · ${bytes(rate)}/s · ${duration((total - now) / rate)} left` : "";
    this.status.textContent = `${bytes(now)} of ${bytes(total)}${left}`;
  }

  /** @returns {Promise<any>} */
  async make() {
    this.bar.value = 1;
    this.status.textContent = "sent";
    const body = { upload_id: this.upload.url.split("/").pop(), ...told(this.file, this.options.noun), ...this.options.fields?.(this.file) };
    const item = await request("POST", `/v1/${this.options.noun}`, body);
    await this.forget();
    return item;
  }

  /** @param {any} item */
  async watch(item) {
    this.button.remove();
    this.bar.removeAttribute("value");
    this.say("checking", "is being checked");
    let now = item;
    while (now.state === "checking") {
      await new Promise((resolve) => setTimeout(resolve, CHECK_MS));
      now = await request("GET", `/v1/${this.options.noun}/${item.id}`);
    }
    this.bar.remove();
    this.say(now.state, "");
    this.row.querySelector("strong").replaceWith(el("a", { href: `${root}/${this.options.noun}/${now.id}` }, now.name));
    if (now.error) this.explain(now.error);
    else notify(`${now.name} is ready`);
    this.options.checked?.(now);
  }

  /** @param {string} state @param {string} text */
  say(state, text) {
    this.status.replaceChildren(el("span", { class: `state state-${state}` }, state), ` ${text}`);
  }

  /** @param {unknown} error */
  fail(error) {
    this.say("failed", "");
    this.explain(problemOf(error));
    this.bar.remove();
    this.button.textContent = "Dismiss";
    this.row.insertBefore(el("button", { type: "button", onclick: () => this.again() }, "Try again"), this.button);
  }

  again() {
    const fresh = new Transfer(this.file, this.options);
    this.row.replaceWith(fresh.row);
    void fresh.run();
  }

  /** @param {{code: string, detail: string}} problem */
  explain({ code, detail }) {
    this.row.append(
      el("div", { class: "callout bad", role: "alert" }, el("p", {}, el("strong", {}, code)), el("p", { class: "pre" }, detail)),
    );
  }

  async cancel() {
    this.canceled = true;
    this.row.remove();
    await this.upload?.abort(true).catch(() => undefined);
    await this.forget();
  }

  /** Another drop of the same file begins anew. */
  async forget() {
    for (const kept of (await this.upload?.findPreviousUploads()) ?? []) {
      if (kept.metadata?.noun === this.options.noun) await tus.defaultOptions.urlStorage.removeUpload(kept.urlStorageKey);
    }
  }
}

/** What the file itself tells of it. @param {File} file @param {string} noun */
function told(file, noun) {
  const name = file.name.replace(/\.(tar\.gz|[^.]+)$/, "") || file.name;
  if (noun === "models") return { name };
  return { name, kind: TEXTS.some((end) => file.name.toLowerCase().endsWith(end)) ? "text" : "tensors" };
}

/** Whether waiting helps. @param {number} status */
function retriable(status) {
  return status === 0 || status === 409 || status === 423 || status === 429 || status >= 500;
}

/** @param {any} error @returns {{code: string, detail: string}} */
function problemOf(error) {
  if (error instanceof ApiError) return error;
  try {
    const { code, detail } = JSON.parse(error.originalResponse.getBody());
    if (code && detail) return { code, detail };
  } catch {
    // no problem+json: the service did not answer
  }
  return { code: "unreachable", detail: "The upload was cut off. Try again: what has arrived is not sent twice." };
}
