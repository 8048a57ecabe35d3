// @ts-check
/** Keys: made, rotated and revoked; a new one is shown this once. */

import { byId, el, request, root } from "./api.js";
import { confirm, open, showOnce } from "./dialogs.js";
import { during } from "./forms.js";
import { refresh } from "./live.js";
import { notify, notifyError } from "./notices.js";

const DAY_MS = 86_400_000;
const ONCE = "It is shown this once: of a key only a hash is stored.";
/** @type {[number, string][]} */
const OVERLAPS = [
  [86_400, "works for another day"],
  [3600, "works for another hour"],
  [604_800, "works for another week"],
  [0, "ends at once"],
];

/** @type {HTMLFormElement} */
const form = byId("make-key");
form.addEventListener("submit", (event) => {
  event.preventDefault();
  void during(form, async () => {
    const data = new FormData(form);
    const days = Number(data.get("expires_at"));
    const made = await request("POST", "/v1/keys", {
      name: data.get("name"),
      role: data.get("role"),
      expires_at: days ? new Date(Date.now() + days * DAY_MS).toISOString() : null,
      ...(data.get("workspace_id") && { workspace_id: data.get("workspace_id") }),
    });
    form.reset();
    await showOnce(`The key ${made.name}`, ONCE, made.key);
    await refresh();
  });
});

/** @param {string} id @param {string} name @param {boolean} own */
async function revoke(id, name, own) {
  const text = own
    ? "This is the key that you are signed in with: you will be signed out."
    : "Programs and sessions that use it are refused from then on.";
  if (!(await confirm(`Revoke ${name}?`, text, "Revoke"))) return;
  await request("DELETE", `/v1/keys/${id}`);
  if (own) return location.assign(`${root}/sign-in`);
  notify(`${name} is revoked`);
  await refresh();
}

/** @param {string} id @param {string} name @param {boolean} own */
async function rotate(id, name, own) {
  const choices = OVERLAPS.map(([seconds, text]) => el("option", { value: seconds }, text));
  const select = el("select", { id: "overlap" }, ...choices);
  const field = el("div", { class: "field" }, el("label", { htmlFor: "overlap" }, "The old key"), select);
  const text = "A new key of the same name and role takes its place.";
  const note = own && el("p", { class: "hint" }, "You are signed in with it: sign in with the new one before it ends.");
  const buttons = [
    { value: "", label: "Cancel" },
    { value: "yes", label: "Rotate", kind: "primary" },
  ];
  if ((await open(`Rotate ${name}?`, [el("p", {}, text), field, ...(note ? [note] : [])], buttons)) !== "yes") return;
  const made = await request("POST", `/v1/keys/${id}:rotate`, { overlap_s: Number(select.value) });
  await showOnce(`The new key ${made.name}`, ONCE, made.key);
  await refresh();
}

byId("keys").addEventListener("click", async (/** @type {MouseEvent} */ event) => {
  const button = event.target instanceof Element ? event.target.closest("button[data-do]") : null;
  const row = button?.closest("tr");
  if (!button || !row) return;
  const work = button.getAttribute("data-do") === "revoke" ? revoke : rotate;
  try {
    await work(row.dataset.key ?? "", row.dataset.name ?? "", row.dataset.own !== undefined);
  } catch (error) {
    notifyError(error);
  }
});
