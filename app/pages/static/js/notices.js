// @ts-check
/** Short messages in the page's live region, which screen readers speak. */

import { ApiError, byId, el } from "./api.js";

const LASTS_MS = 6000;

/**
 * Shows a message; a failure stays until it is dismissed.
 * @param {string} text
 * @param {"good" | "bad"} [kind]
 */
export function notify(text, kind = "good") {
  const box = el("div", { class: `notice ${kind}` }, el("p", {}, text));
  box.append(el("button", { type: "button", class: "quiet", "aria-label": "Dismiss", onclick: () => box.remove() }, "×"));
  byId("notices").append(box);
  if (kind === "good") setTimeout(() => box.remove(), LASTS_MS);
}

/**
 * Shows what went wrong.
 * @param {unknown} error
 */
export function notifyError(error) {
  if (error instanceof ApiError && error.status === 401) return; // the page is being left
  notify(error instanceof ApiError ? `${error.detail} (${error.code})` : String(error), "bad");
}
