// The page: whether there is a session, how long it lasts, and what shows with or without one.

import { ask, by, element, notice, press, speak, Trouble } from "/net.js";
import { forgery, socket, stream } from "/panels.js";
import { calls } from "/calls.js";

const LOOK_AGAIN = 5_000; // asking for the session does not extend it
const WATCH_EVERY = 2_000;
const RACK_LENGTH = 24;

/** The session as last told, and when it was told. */
let session = null;
let toldAt = 0;
/** The token as the API last described it. It describes; it never hands over. */
let token = null;
let tokenAt = 0;
let rack = [];
let watching = 0;

const seconds = (since) => (performance.now() - since) / 1000;

function show(state) {
  document.documentElement.dataset.state = state;
  for (const part of document.querySelectorAll("[data-when]")) {
    part.hidden = !part.dataset.when.split(" ").includes(state);
  }
}

/** A span of time as people read clocks. */
function clock(left) {
  const whole = Math.max(0, Math.floor(left));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n) => String(n).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

function signInLinks() {
  const here = encodeURIComponent(location.pathname + location.search + location.hash);
  by("sign-in").href = `/bff/login?return_to=${here}`;
  by("sign-in-silently").href = `/bff/login?return_to=${here}&prompt=none`;
}

function signedOut() {
  const was = session;
  session = token = null;
  rack = [];
  watch(false);
  panels.forEach((panel) => panel.close());
  signInLinks();
  show("out");
  if (was) {
    const code = talk.lastCode();
    const closed = code > 1001 ? ` Your WebSocket was closed with code ${code}.` : "";
    notice(`Your session has ended: the ticket is worth nothing any more.${closed}`);
    speak("You are signed out.");
  }
}

function signedIn(user) {
  const first = !session;
  session = user.session;
  toldAt = performance.now();
  const name = user.claims.name ?? user.sub;
  by("name").textContent = by("bar-name").textContent = name;
  by("sub").textContent = user.sub;
  by("provider").textContent = user.provider;
  const groups = user.claims.groups ?? [];
  by("groups").replaceChildren(...(groups.length ? groups.map((group) => element("span", group)) : ["none"]));
  if (first) {
    show("in");
    notice();
    speak(`You are signed in as ${name}.`);
    lookAtToken();
  }
}

/** Asks who is signed in. A failure to ask is shown and changes nothing: it is no answer. */
async function lookAtSession() {
  try {
    signedIn((await ask("/bff/user")).body);
    if (by("notice").dataset.away) notice();
    delete by("notice").dataset.away;
  } catch (trouble) {
    if (trouble.code === "unauthenticated") return;
    if (!session) show("unknown");
    by("notice").dataset.away = "yes";
    notice(trouble.message);
  }
}

/** Learns of the token what any answer of the API says about it. */
function learn(body) {
  if (!body?.token) return;
  const isNew = token?.fingerprint !== body.token.fingerprint;
  const refreshed = isNew && token;
  token = body.token;
  tokenAt = performance.now();
  if (!isNew) return;
  rack.push({ fingerprint: token.fingerprint, at: new Date() });
  rack = rack.slice(-RACK_LENGTH);
  by("rack").replaceChildren(...rack.map(({ fingerprint, at }, place) => {
    const item = element("li", "", place === rack.length - 1 ? "now" : "");
    item.style.setProperty("--hue", String(parseInt(fingerprint.slice(0, 4), 16) % 360));
    item.append(element("code", fingerprint), element("time", at.toLocaleTimeString()));
    return item;
  }));
  by("rack").scrollLeft = by("rack").scrollWidth;
  tick();
  if (refreshed) {
    speak("The access token was refreshed.");
    for (const tag of document.querySelectorAll(".coat, .watching")) {
      tag.classList.remove("swapped");
      requestAnimationFrame(() => requestAnimationFrame(() => tag.classList.add("swapped")));
    }
  }
}

async function lookAtToken() {
  try {
    learn((await ask("/api/whoami")).body);
  } catch (trouble) {
    if (trouble.code !== "unauthenticated") notice(trouble.message);
  }
}

function watch(on) {
  clearInterval(watching);
  watching = on ? setInterval(lookAtToken, WATCH_EVERY) : 0;
  press(by("watch"), on, on ? "Stop calling" : "Call every two seconds");
  if (on) lookAtToken();
}

/** Once a second: all the clocks on the page. */
function tick() {
  const empty = session ? "empty: no script can read the ticket" : "empty";
  by("readable-cookies").textContent = document.cookie ? `“${document.cookie}”` : empty;
  const stored = localStorage.length + sessionStorage.length;
  by("readable-storage").textContent = stored ? `${stored} entries, none of ours` : "empty";
  if (!session) return;
  const passed = seconds(toldAt);
  by("absolute").textContent = clock(session.expires_in - passed);
  by("idle").textContent = clock(session.idle_expires_in - passed);
  if (Math.min(session.expires_in, session.idle_expires_in) <= passed) lookAtSession();
  if (!token) return;
  const left = Math.max(0, token.expires_in - seconds(tokenAt));
  const words = left > 0 ? `${Math.ceil(left)} s left` : "expired: the next call waits for a new one";
  for (const part of document.querySelectorAll("[data-token=fingerprint]")) part.textContent = token.fingerprint;
  for (const part of document.querySelectorAll("[data-token=left]")) part.textContent = words;
  for (const meter of document.querySelectorAll(".token-life")) {
    meter.max = token.lifetime;
    meter.value = left;
    meter.classList.toggle("ageing", left < 10);
  }
}

/** Logs out with a fetch, so that the page can say what goes wrong; then goes where it is told. */
async function logOut() {
  try {
    const { body } = await ask("/bff/logout", { method: "POST", headers: { accept: "application/json" } });
    location.assign(body.redirect_to);
  } catch (trouble) {
    notice(trouble.message);
    lookAtSession();
  }
}

async function extend() {
  try {
    signedIn((await ask("/bff/session/extend", { method: "POST" })).body);
    tick();
    speak("Your session was extended.");
  } catch (trouble) {
    if (trouble.code !== "unauthenticated") notice(trouble.message);
  }
}

const talk = socket();
const panels = [stream(), talk, forgery(() => lookAtSession())];
calls(learn);

addEventListener("session-gone", signedOut);
addEventListener("hashchange", signInLinks);
document.addEventListener("visibilitychange", () => document.hidden || lookAtSession());
document.addEventListener("click", (event) => {
  const action = event.target.closest("[data-action]")?.dataset.action;
  if (action === "log-out") logOut();
  if (action === "extend") extend();
});
by("watch").addEventListener("click", () => watch(!watching));
// A page that comes back out of the browser's memory may show a session that has ended since.
addEventListener("pageshow", (event) => event.persisted && lookAtSession());
addEventListener("unhandledrejection", (event) => {
  if (event.reason instanceof Trouble) notice(event.reason.message);
});

signInLinks();
tick();
setInterval(tick, 1_000);
setInterval(() => document.hidden || !session || lookAtSession(), LOOK_AGAIN);
lookAtSession();
