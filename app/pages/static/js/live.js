// @ts-check
/**
 * Sections that keep up by themselves: those with `data-live` and an id are replaced by what the server renders now.
 * Often while something in them is under way (`data-state`), else seldom; never in a tab that nobody looks at.
 */

import { rendered } from "./api.js";
import { tellTimes } from "./shell.js";

const SOON_MS = 2000;
const LATER_MS = 20_000;
const UNDER_WAY = ["queued", "running", "canceling", "checking", "pending", "sending"]
  .map((state) => `[data-live] [data-state="${state}"]`)
  .join();

/** Asks for the page once more, and puts in what has changed. */
export async function refresh() {
  const page = await rendered();
  if (!page) return;
  for (const section of document.querySelectorAll("[data-live]")) {
    const fresh = page.getElementById(section.id);
    if (fresh && fresh.innerHTML !== was.get(section.id)) put(section, fresh);
  }
}

/** Id -> what the server rendered last: the page itself is changed by scripts. @type {Map<string, string>} */
const was = new Map();

/** @param {Element} section @param {Element} fresh */
function put(section, fresh) {
  const first = !was.has(section.id);
  was.set(section.id, fresh.innerHTML);
  const focused = section.contains(document.activeElement) ? document.activeElement : null;
  if (first && section.innerHTML === fresh.innerHTML) return;
  if (focused && focused.matches("input, select, textarea")) return; // somebody is typing
  const href = focused?.getAttribute("href");
  section.replaceChildren(...fresh.childNodes);
  tellTimes(section);
  if (href) /** @type {HTMLElement | null} */ (section.querySelector(`a[href="${CSS.escape(href)}"]`))?.focus();
}

async function loop() {
  for (;;) {
    const soon = document.querySelector(UNDER_WAY) !== null;
    await new Promise((resolve) => setTimeout(resolve, soon ? SOON_MS : LATER_MS));
    if (document.hidden || !document.querySelector("[data-live]")) continue;
    await refresh();
  }
}

void loop();
