// @ts-check
/** Dialogs: the browser's own, so that Escape, focus and the rest of the page are as they should be. */

import { el } from "./api.js";

/**
 * Opens a dialog; removed when it closes. Resolves to the value of the button that closed it; "" for Escape.
 * @param {string} title
 * @param {Node[]} content
 * @param {{value: string, label: string, kind?: string}[]} buttons The last one is the main one.
 * @returns {Promise<string>}
 */
export function open(title, content, buttons) {
  const actions = buttons.map(({ value, label, kind }) => el("button", { type: "submit", value, class: kind ?? "" }, label));
  const form = el("form", { method: "dialog", class: "actions" }, ...actions);
  const dialog = el("dialog", { "aria-label": title }, el("h2", {}, title), ...content, form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue);
    });
  });
}

/**
 * Asks before something that cannot be undone.
 * @param {string} title
 * @param {string} text What will happen.
 * @param {string} action What the button says.
 * @param {Node[]} [more] Fields that go with it.
 * @returns {Promise<boolean>}
 */
export async function confirm(title, text, action, more = []) {
  const buttons = [
    { value: "", label: "Cancel" },
    { value: "yes", label: action, kind: "danger" },
  ];
  return (await open(title, [el("p", {}, text), ...more], buttons)) === "yes";
}

/**
 * Shows a secret that is never shown again.
 * @param {string} title
 * @param {string} text
 * @param {string} secret
 */
export async function showOnce(title, text, secret) {
  const box = el(
    "div",
    { class: "copyable wraps" },
    el("pre", { tabIndex: 0 }, el("code", {}, secret)),
    el("button", { type: "button", class: "quiet", dataset: { copy: "" } }, "Copy"),
  );
  await open(title, [el("p", {}, text), box], [{ value: "ok", label: "I have kept it", kind: "primary" }]);
}
