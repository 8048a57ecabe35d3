// @ts-check
/** Webhooks: made, tested, rotated, switched; deliveries sent again. */

import { request, root } from "./api.js";
import { confirm, showOnce } from "./dialogs.js";
import { during } from "./forms.js";
import { refresh } from "./live.js";
import { notify, notifyError } from "./notices.js";

const ONCE = "Give it to the receiver, which proves with it that messages are from here. It is shown this once.";

const form = document.getElementById("make-webhook");
if (form instanceof HTMLFormElement) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void during(form, async () => {
      const data = new FormData(form);
      const body = { url: data.get("url"), events: data.getAll("events"), name: data.get("name") || null };
      const made = await request("POST", "/v1/webhooks", body);
      await showOnce("The webhook's secret", ONCE, made.secret);
      location.assign(`${root}/settings/webhooks/${made.id}`);
    });
  });
}

/** @type {Record<string, (path: string, name: string, button: HTMLElement) => Promise<void>>} */
const WORK = {
  async test(path) {
    await request("POST", `${path}:test`);
    notify("A test is on its way");
    await refresh();
  },
  async enable(path) {
    await request("PATCH", path, { enabled: true });
    location.reload();
  },
  async disable(path) {
    await request("PATCH", path, { enabled: false });
    location.reload();
  },
  async rotate(path, name) {
    const text = "Messages are signed with the new and with the old secret for 24 hours; then with the new one alone.";
    if (!(await confirm(`Rotate the secret of ${name}?`, text, "Rotate"))) return;
    const made = await request("POST", `${path}:rotate`);
    await showOnce("The new secret", ONCE, made.secret);
    location.reload();
  },
  async delete(path, name) {
    if (!(await confirm(`Delete ${name}?`, "With its log; nothing more is sent to it.", "Delete"))) return;
    await request("DELETE", path);
    location.assign(`${root}/settings/webhooks`);
  },
  async redeliver(path, _name, button) {
    await request("POST", `${path}/deliveries/${button.dataset.delivery}:redeliver`);
    notify("Sent again");
    await refresh();
  },
};

document.addEventListener("click", async (event) => {
  const button = event.target instanceof Element ? event.target.closest("button[data-do]") : null;
  const place = button?.closest("[data-webhook]");
  if (!(button instanceof HTMLElement) || !(place instanceof HTMLElement)) return;
  try {
    await WORK[button.dataset.do ?? ""]?.(`/v1/webhooks/${place.dataset.webhook}`, place.dataset.name ?? "", button);
  } catch (error) {
    notifyError(error);
  }
});
