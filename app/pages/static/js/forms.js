// @ts-check
/** Forms that ask the API: faults stand at the fields that they name, and a button is not pressed twice. */

import { ApiError, el } from "./api.js";
import { notifyError } from "./notices.js";

/**
 * Runs `work` with the form's buttons off; shows what went wrong at its field, or as a notice.
 * @param {HTMLFormElement} form
 * @param {() => Promise<void>} work
 */
export async function during(form, work) {
  const buttons = /** @type {NodeListOf<HTMLButtonElement>} */ (form.querySelectorAll("button"));
  clearFaults(form);
  buttons.forEach((button) => (button.disabled = true));
  try {
    await work();
  } catch (error) {
    if (!(error instanceof ApiError && placeFaults(form, error.errors))) notifyError(error);
  } finally {
    buttons.forEach((button) => (button.disabled = false));
  }
}

/** @param {ParentNode} form */
export function clearFaults(form) {
  form.querySelectorAll(".fault").forEach((fault) => fault.remove());
  form.querySelectorAll("[aria-invalid]").forEach((field) => field.removeAttribute("aria-invalid"));
}

/**
 * Puts each fault below the field whose name its pointer begins with. False: one of them has no field here.
 * @param {HTMLFormElement} form
 * @param {{pointer: string, detail: string}[]} faults
 */
function placeFaults(form, faults) {
  let placed = 0;
  for (const { pointer, detail } of faults) {
    const field = form.querySelector(`[name="${CSS.escape(pointer.split("/")[1] ?? "")}"]`);
    if (!field || field.getAttribute("type") === "hidden") continue;
    const fault = el("p", { class: "fault", id: `fault-${placed}-${field.id}` }, detail);
    (field.closest(".field") ?? field.parentElement ?? form).append(fault);
    field.setAttribute("aria-invalid", "true");
    field.setAttribute("aria-describedby", fault.id);
    if (placed === 0) /** @type {HTMLElement} */ (field).focus();
    placed += 1;
  }
  return faults.length > 0 && placed === faults.length;
}
