// @ts-check
/** Faults of a job's request, each at the control that its JSON pointer names. */

import { el } from "./api.js";

/** @typedef {{pointer: string, detail: string, code?: string}} Fault */

/** @param {ParentNode} form */
export function clear(form) {
  form.querySelectorAll(".fault").forEach((fault) => fault.remove());
  form.querySelectorAll("[aria-invalid]").forEach((control) => {
    control.removeAttribute("aria-invalid");
    const kept = (control.getAttribute("aria-describedby") ?? "").split(" ").filter((id) => !id.startsWith("fault-"));
    if (kept.join("")) control.setAttribute("aria-describedby", kept.join(" "));
    else control.removeAttribute("aria-describedby");
  });
}

/**
 * Shows each fault; returns those that belong to no control.
 * @param {HTMLElement} form
 * @param {Fault[]} faults
 */
export function place(form, faults) {
  clear(form);
  return faults.filter((fault, index) => {
    const box = boxOf(form, fault.pointer);
    if (!box) return true;
    const told = el("p", { class: "fault", id: `fault-${index}` }, fault.detail);
    box.append(told);
    for (let folded = box.closest("details"); folded; folded = folded.parentElement?.closest("details") ?? null) folded.open = true;
    const control = box.querySelector("input, select, textarea");
    if (control && !control.closest(".step .head")) {
      control.setAttribute("aria-invalid", "true");
      control.setAttribute("aria-describedby", `${control.getAttribute("aria-describedby") ?? ""} ${told.id}`.trim());
    }
    return false;
  });
}

/** The control that says what the pointer names, or the nearest thing around it. @param {HTMLElement} form @param {string} pointer */
function boxOf(form, pointer) {
  const step = /^\/recipe\/steps\/(\d+)(.*)$/.exec(pointer);
  const within = step ? form.querySelector(`[data-step="${step[1]}"]`) : form;
  if (!within) return form.querySelector('[data-pointer="/recipe"]');
  for (let path = step ? step[2] : pointer; path; path = path.slice(0, path.lastIndexOf("/"))) {
    const found = within.querySelector(`[data-${step ? "path" : "pointer"}="${CSS.escape(path)}"]`);
    if (found) return found;
  }
  return step ? within : null;
}
