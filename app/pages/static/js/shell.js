// @ts-check
/** What every page does: times told from now, and buttons that copy. */

import { ago, when } from "./format.js";
import { notify } from "./notices.js";

/** Writes the times below `within` as how long ago they were. @param {ParentNode} within */
export function tellTimes(within = document) {
  for (const time of within.querySelectorAll("time[data-ago]")) {
    const moment = time.getAttribute("datetime") ?? "";
    time.textContent = ago(moment);
    time.setAttribute("title", when(moment));
  }
}

/** @param {HTMLElement} button */
async function copy(button) {
  const text = button.closest(".copyable")?.querySelector("code, input");
  const value = text instanceof HTMLInputElement ? text.value : (text?.textContent ?? "");
  try {
    await navigator.clipboard.writeText(value);
    const was = button.textContent;
    button.textContent = "Copied"; // a notice would lie behind an open dialog
    setTimeout(() => (button.textContent = was), 2000);
  } catch {
    // Without HTTPS browsers give no clipboard: the text is selected, to be copied by hand.
    if (text) getSelection()?.selectAllChildren(text);
    notify("Selected; copy it with your keyboard");
  }
}

document.addEventListener("click", (event) => {
  const button = event.target instanceof Element ? event.target.closest("[data-copy]") : null;
  if (button instanceof HTMLElement) void copy(button);
});
tellTimes();
setInterval(() => tellTimes(), 30_000);
