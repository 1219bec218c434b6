// Asks our own origin, and says in one way what can go wrong: no session, refused, away, not reached.

/** What an answer that is no success means for the person in front of the page. */
export class Trouble extends Error {
  constructor(status, code, words, body) {
    super(words);
    this.status = status; // 0: no answer came
    this.code = code;
    this.body = body;
  }
}

/** Fetches; the answer with its body read. Throws Trouble for everything else than 2xx. */
export async function ask(path, options = {}) {
  let response, text;
  try {
    response = await fetch(path, { cache: "no-store", redirect: "error", ...options });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble(0, "unreachable", "The app did not answer. Is the demo still running?");
  }
  let body = text;
  if (/\bjson\b/.test(response.headers.get("content-type") ?? "")) {
    try {
      body = JSON.parse(text);
    } catch {
      throw new Trouble(response.status, "unreadable", "The answer could not be read.");
    }
  }
  if (!response.ok) {
    const code = body?.code ?? "";
    const said = body?.detail ?? body?.title ?? `The answer was ${response.status}.`;
    const wait = response.headers.get("retry-after");
    const words = response.status === 503 && wait ? `${said} Again in ${wait} s.` : said;
    if (response.status === 401 && code === "unauthenticated") dispatchEvent(new CustomEvent("session-gone", { detail: body }));
    throw new Trouble(response.status, code, words, body);
  }
  return { status: response.status, body };
}

/** The element of that id. */
export const by = (id) => document.getElementById(id);

/** An element with text in it: never markup, so nothing that an answer holds can become part of the page's own. */
export function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** Says something to those who listen to the page rather than see it. */
export function speak(words) {
  by("spoken").textContent = words;
}

/** Shows a notice above everything, or takes it away. */
export function notice(words = "") {
  by("notice").textContent = words;
  by("notice").hidden = !words;
}

/** Marks a toggle as on or off. */
export function press(button, on, words) {
  button.setAttribute("aria-pressed", String(on));
  button.textContent = words;
}
