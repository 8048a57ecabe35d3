// @ts-check
/** Pages of models and datasets: uploads, and deletion. */

import { request, root } from "./api.js";
import { confirm } from "./dialogs.js";
import { refresh } from "./live.js";
import { notifyError } from "./notices.js";
import { takeFiles } from "./upload.js";

/** @param {string} id */
const typed = (id) => /** @type {HTMLInputElement | HTMLSelectElement | null} */ (document.getElementById(id));

/** What is typed under "Options", for one upload; a name is for that one alone. */
function options() {
  const [name, task] = [typed("upload-name"), typed("upload-task")];
  const fields = { ...(name?.value && { name: name.value }), ...(task?.value && { task: task.value }) };
  if (name) name.value = "";
  return fields;
}

for (const place of document.querySelectorAll("[data-upload]")) {
  const noun = /** @type {"models" | "datasets"} */ (place.getAttribute("data-upload"));
  const shown = () => void refresh().catch(() => undefined);
  takeFiles(/** @type {HTMLElement} */ (place), { noun, fields: options, made: shown, checked: shown });
}

document.addEventListener("click", async (event) => {
  const button = event.target instanceof Element ? event.target.closest("[data-delete]") : null;
  if (!(button instanceof HTMLElement)) return;
  const { delete: path = "", name = "", then = "/" } = button.dataset;
  const text = "Its bytes are removed. Jobs that read it, and their artifacts, stay.";
  if (!(await confirm(`Delete ${name}?`, text, "Delete"))) return;
  try {
    await request("DELETE", path);
    location.assign(root + then);
  } catch (error) {
    notifyError(error);
  }
});
