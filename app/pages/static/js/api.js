// @ts-check
/** Calls of the API under /v1, with this browser's session, and elements of the page. */

/** The prefix that a proxy strips; empty without one. */
export const root = document.documentElement.dataset.root ?? "";

/** A problem that the API tells (RFC 9457). */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {{code?: string, detail?: string, errors?: {pointer: string, detail: string, code?: string}[]}} problem
   */
  constructor(status, problem) {
    super(problem.detail ?? `The service answered ${status}.`);
    this.status = status;
    this.code = problem.code ?? "unknown";
    this.detail = this.message;
    this.errors = problem.errors ?? [];
  }
}

/**
 * The answer's JSON, or its text; null where it has none.
 * @param {string} method
 * @param {string} path Begins with /v1.
 * @param {unknown} [body] Sent as JSON.
 * @param {Record<string, string>} [headers]
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 * @throws {ApiError} Also, with status 0 and code `unreachable`, where the service does not answer.
 */
export async function request(method, path, body, headers = {}, signal) {
  /** @type {Record<string, string>} */
  const sent = { Accept: "application/json", ...headers };
  if (body !== undefined) sent["Content-Type"] ??= "application/json";
  if (method === "POST") sent["Idempotency-Key"] ??= newKey();
  const options = { method, headers: sent, body: body === undefined ? undefined : JSON.stringify(body), signal };
  let response;
  try {
    response = await fetch(root + path, options);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, { code: "unreachable", detail: "The service does not answer; look whether it runs." });
  }
  const json = (response.headers.get("Content-Type") ?? "").includes("json");
  if (response.status === 401) signInAgain();
  if (!response.ok) throw new ApiError(response.status, json ? await response.json() : {});
  if (response.status === 204) return null;
  return json ? response.json() : response.text();
}

/** The session has ended: to the page that begins one, and back to this. */
export function signInAgain() {
  location.assign(`${root}/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`);
}

/** This page as the server renders it now; null where it does not answer, or the session has ended. @returns {Promise<Document | null>} */
export async function rendered() {
  const response = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (!response) return null;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  // Over plain HTTP the service cannot tell this from a visit by a link, and sends a page that goes on to the form.
  const away = response.redirected || page.querySelector('meta[http-equiv="refresh"]') !== null;
  if (away) signInAgain();
  return response.ok && !away ? page : null;
}

/** An Idempotency-Key. `crypto.randomUUID` is there on HTTPS and localhost alone. */
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * A new element. Properties are set as such where the element has them, else as attributes; `on…` are listeners,
 * `dataset` is merged. Children are nodes or text, never markup.
 * @param {string} tag
 * @param {Record<string, any>} [props]
 * @param {...(Node | string | number | null | undefined | false)} children
 * @returns {any}
 */
export function el(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && !name.includes("-") && !(name in READ_ONLY)) /** @type {any} */ (element)[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child || child === 0).map((child) => /** @type {any} */ (child)));
  return element;
}

/** Properties that only their attribute sets. */
const READ_ONLY = { form: 1, list: 1, width: 1, height: 1 };

/**
 * The element of that id; throws where the page lacks it.
 * @param {string} id
 * @returns {any}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`no element #${id}`);
  return element;
}
