// "Call the API": what this page sent beside what arrived.

import { ask, by, element } from "/net.js";

const CALLS = {
  whoami: { path: "/api/whoami" },
  echo: {
    path: "/api/echo",
    options: {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ coat: "grey", umbrella: true }),
    },
  },
  "back-office": { path: "/api/back-office" },
  slow: { path: "/api/slow?ms=3000" },
  missing: { path: "/api/nowhere" },
};

/** What cloakroom adds on the way up. */
const ADDED = /^(authorization|x-forwarded-.*|x-request-id|traceparent|tracestate|forwarded|via)$/;

function row(name, value, className = "") {
  const line = element("div", "", className);
  line.append(element("dt", name), element("dd", value));
  return line;
}

function list(id, rows) {
  const made = document.createElement("dl");
  made.append(...rows);
  by(id).replaceChildren(made);
}

function hint(id, words) {
  by(id).replaceChildren(element("p", words, "hint"));
}

/** Wires the panel; `learn` is shown each answer. */
export function calls(learn) {
  const button = by("call-form").querySelector("button");
  by("call-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const { path, options = {} } = CALLS[by("call-what").value];
    const headers = { accept: "application/json", ...options.headers };
    const sent = Object.entries(headers).map(([name, value]) => row(name, value));
    list("sent", [
      row(options.method ?? "GET", path, "first"),
      ...sent,
      row("authorization", "none: this page has no token", "absent"),
      row("cookie", "sent by the browser, unseen by this page", "absent"),
      ...(options.body ? [row("body", options.body, "body")] : []),
    ]);
    hint("received", "On its way…");
    button.disabled = true;
    let status, body;
    const began = performance.now();
    try {
      ({ status, body } = await ask(path, { ...options, headers }));
    } catch (trouble) {
      ({ status, body } = trouble);
      body ??= trouble.message;
    } finally {
      button.disabled = false;
    }
    learn(body);
    by("answer-status").textContent = status ? `${status} · ${Math.round(performance.now() - began)} ms` : "none";
    by("answer").textContent = typeof body === "string" ? body : JSON.stringify(body, null, 2);
    showReceived(status, body);
  });
}

function showReceived(status, body) {
  const received = body?.received;
  if (!received) {
    const words = body?.code
      ? `Nothing: cloakroom answered itself, ${status} “${body.code}”.`
      : "The API answered without saying what it received.";
    hint("received", words);
    return;
  }
  const names = Object.keys(received.headers);
  names.sort((a, b) => ADDED.test(b) - ADDED.test(a) || a.localeCompare(b));
  list("received", [
    row(received.method, received.path, "first"),
    ...names.map((name) => row(name, received.headers[name], ADDED.test(name) ? "added" : "")),
    ...("cookie" in received.headers ? [] : [row("cookie", "none: the ticket stays at the counter", "absent")]),
    ...(body.body ? [row("body", body.body, "body")] : []),
  ]);
}
