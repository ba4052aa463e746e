// The one way to this server: requests with the key, below any path, errors as it words them.

const ROOT = new URL("../", import.meta.url);
const KEY = "lungseg-key";
const PROBLEM_TYPE = "application/problem+json";
/** Text that is longer comes as a whole at the end: a browser copies all of it each time it is read. */
const HEARD_AT_ONCE = 65536;
/** What a server, or a gateway before it, says when others keep it busy, and how long it is asked again. */
const BUSY = new Set(["overloaded", "rate_limited", "draining"]);
const PATIENCE_S = 60;
const UNREACHABLE = {
  code: "unreachable",
  title: "The server cannot be reached",
  detail: "no answer came from this page's server",
};
let known = null;
let held = "";
let asking = null;
let whyAsked = null;

/** Why something has no answer, in the words of the service where it said them. */
export class Problem extends Error {
  constructor({code, title, detail, status = 0, request_id = ""}) {
    super(detail);
    Object.assign(this, {code, title, detail, status, requestId: request_id});
  }
}

/** The view of scans, which is loaded for the first of them. */
export async function scanView() {
  try {
    return await import("./scan.js");
  } catch (error) {
    throw Object.assign(new Problem(UNREACHABLE), {cause: error});
  }
}

/** Version, limits and whether a key is needed. */
export async function about() {
  known ??= (await send("", {method: "GET", accept: "application/json"})).json();
  return known;
}

/** The limits, or nothing where they could not be learnt. */
export async function limits() {
  try {
    return (await about()).limits;
  } catch {
    return {};
  }
}

/** Refuses what the service would refuse for its size, before it is sent. */
export function checkSize(bytes, most) {
  if (most && bytes > most) {
    throw new Problem({
      code: "body_too_large",
      title: "The body is too large",
      detail: `expected at most ${size(most)}, this has ${size(bytes)}: it was not sent`,
    });
  }
}

/** The key that is used until this tab closes. */
export function key() {
  try {
    return held || sessionStorage.getItem(KEY) || "";
  } catch { // a browser may keep nothing at all
    return held;
  }
}

function keep(given) {
  held = given;
  try {
    sessionStorage.setItem(KEY, given);
  } catch {
    // then it is forgotten with this page, not with the tab
  }
}

/** A key as a header takes it, one character a byte: the server compares bytes of UTF-8. */
const inBytes = (text) => String.fromCharCode(...new TextEncoder().encode(text));

/** Asks for a key; whether one was given. Several askers share one question. */
export function askForKey(why = "") {
  asking ??= new Promise((done) => {
    const dialog = document.getElementById("key");
    const field = document.getElementById("key-field");
    const text = document.getElementById("key-why");
    whyAsked ??= text.textContent;
    text.textContent = why || whyAsked;
    field.value = "";
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      asking = null;
      const given = dialog.returnValue === "use" && field.value.trim();
      if (given) keep(inBytes(given));
      field.value = "";
      done(Boolean(given));
    }, {once: true});
    dialog.showModal();
  });
  return asking;
}

/**
 * Sends one request and gives the whole answer.
 *
 * `onUpload` hears how much has been sent, from 0 to 1; with `onText` the answer is text, and it
 * hears each new piece as it comes, but a long one at the end. A server that is busy is asked again
 * when it says so, after `onBusy`. Throws a `Problem` for whatever is no success.
 */
export async function send(path, options = {}) {
  const used = key();
  try {
    return await patiently(path, options);
  } catch (error) {
    if (error.code !== "unauthorized") throw error;
    // Another request may have asked meanwhile.
    if (key() === used) {
      const why = used ? "The server does not know that key. Look whether it is whole, and enter it again." : "";
      if (!(await askForKey(why))) throw error;
    }
    return send(path, options);
  }
}

async function patiently(path, options) {
  const until = performance.now() + PATIENCE_S * 1000;
  for (;;) {
    try {
      return await once(path, options);
    } catch (error) {
      const wait_ms = 1000 * (error.retryAfter_s || 1);
      if (!BUSY.has(error.code) || performance.now() + wait_ms > until) throw error;
      options.onBusy?.();
      await pause(wait_ms, options.signal);
    }
  }
}

/** Waits, but no longer than until somebody cancels. */
function pause(wait_ms, signal) {
  return new Promise((done) => {
    const timer = setTimeout(done, wait_ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      done();
    }, {once: true});
  });
}

function once(path, {method = "POST", query = {}, body = null, accept, type, signal, onUpload, onText}) {
  const address = new URL(path, ROOT);
  for (const [name, value] of Object.entries(query)) address.searchParams.set(name, value);
  return new Promise((done, fail) => {
    const request = new XMLHttpRequest();
    request.open(method, address);
    request.responseType = onText ? "text" : "arraybuffer";
    if (accept) request.setRequestHeader("Accept", accept);
    if (type) request.setRequestHeader("Content-Type", type);
    if (key()) request.setRequestHeader("X-API-Key", key());
    if (onUpload) {
      request.upload.onprogress = (event) => onUpload(event.lengthComputable ? event.loaded / event.total : null);
      request.upload.onload = () => onUpload(1);
    }
    let heard = 0;
    const hear = () => {
      const text = request.responseText;
      onText(text.slice(heard));
      heard = text.length;
    };
    // Where one has to log in first, a page comes instead of an answer.
    const succeeded = () => request.status < 400 && !(request.getResponseHeader("Content-Type") ?? "").startsWith("text/html");
    if (onText) request.onprogress = ({loaded}) => succeeded() && loaded - heard <= HEARD_AT_ONCE && hear();
    const stop = () => request.abort();
    const leave = (settle, value) => {
      signal?.removeEventListener("abort", stop);
      settle(value);
    };
    request.onload = () => {
      if (onText && succeeded()) hear();
      const answer = new Answer(request, onText);
      if (succeeded()) leave(done, answer);
      else leave(fail, refusal(answer));
    };
    request.onerror = () => leave(fail, new Problem(UNREACHABLE));
    request.onabort = () => leave(fail, new Problem({code: "cancelled", title: "Cancelled", detail: "you stopped this"}));
    if (signal?.aborted) {
      request.onabort();
      return;
    }
    signal?.addEventListener("abort", stop);
    request.send(body);
  });
}

class Answer {
  constructor(request, asText) {
    this.status = request.status;
    this.request = request;
    this.bytes = asText ? new Uint8Array() : new Uint8Array(request.response || new ArrayBuffer());
    this.asText = asText;
  }

  header(name) {
    return this.request.getResponseHeader(name) || "";
  }

  text() {
    return this.asText ? this.request.responseText : new TextDecoder().decode(this.bytes);
  }

  json() {
    return JSON.parse(this.text());
  }
}

function refusal(answer) {
  if (answer.header("Content-Type").startsWith(PROBLEM_TYPE)) {
    return Object.assign(new Problem(answer.json()), {retryAfter_s: Number(answer.header("Retry-After"))});
  }
  return new Problem({
    code: answer.status === 413 ? "body_too_large" : "no_problem",
    title: "The server refused this",
    detail: answer.status < 400 ? "a page came instead of its answer: perhaps you have to log in first"
      : `it answered with status ${answer.status} and did not say why`,
    status: answer.status,
    request_id: answer.header("X-Request-ID"),
  });
}

/** Bytes for people. */
export function size(bytes) {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  const power = Math.min(3, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  return `${(bytes / 1024 ** power).toFixed(power ? 1 : 0)} ${units[power]}`;
}
