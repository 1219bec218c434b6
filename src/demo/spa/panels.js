// The event stream, the WebSocket and the forged request.

import { ask, by, element, press, speak } from "/net.js";

const STRIP_LENGTH = 12;
const LOG_LENGTH = 30;

function say(id, words) {
  by(id).textContent = words;
}

/** An event stream that can be opened and closed. */
export function stream() {
  const button = by("events-toggle");
  let source = null;

  function close(words = "closed") {
    source?.close();
    source = null;
    press(button, false, "Open");
    say("events-state", words);
  }

  function open() {
    source = new EventSource("/api/events");
    press(button, true, "Close");
    say("events-state", "opening…");
    source.addEventListener("open", () => say("events-state", "open"));
    source.addEventListener("tick", (event) => {
      const { count } = JSON.parse(event.data);
      say("events-count", String(count));
      const dot = element("li");
      dot.style.setProperty("--place", String(count % STRIP_LENGTH));
      by("events-strip").append(dot);
      while (by("events-strip").childElementCount > STRIP_LENGTH) by("events-strip").firstElementChild.remove();
    });
    source.addEventListener("error", () => {
      // A stream that was refused is closed by the browser; one that broke off is tried again by it.
      if (source?.readyState === EventSource.CLOSED) {
        close("refused");
        ask("/bff/user").catch(() => {});
      } else {
        say("events-state", "broke off; the browser tries again…");
      }
    });
  }

  button.addEventListener("click", () => (source ? close() : open()));
  return { close };
}

/** A WebSocket that can be opened, talked to and closed. */
export function socket() {
  const button = by("socket-toggle");
  const sayButton = by("socket-form").querySelector("button");
  let current = null;
  let lastCode = 0;

  function log(words, className) {
    by("socket-log").append(element("li", words, className));
    while (by("socket-log").childElementCount > LOG_LENGTH) by("socket-log").firstElementChild.remove();
    by("socket-log").scrollTop = by("socket-log").scrollHeight;
  }

  function ended(words) {
    current = null;
    sayButton.disabled = true;
    press(button, false, "Open");
    say("socket-state", words);
  }

  function open() {
    const made = (current = new WebSocket(`${location.origin.replace("http", "ws")}/api/ws`));
    lastCode = 0;
    press(button, true, "Close");
    say("socket-state", "opening…");
    made.addEventListener("open", () => {
      say("socket-state", "open");
      sayButton.disabled = false;
    });
    made.addEventListener("message", (event) => log(String(event.data), "theirs"));
    made.addEventListener("close", ({ code, reason }) => {
      if (made !== current) return;
      lastCode = code;
      ended(code === 1000 || code === 1005 ? "closed" : `closed by the other side: ${code}`);
      log(`closed: ${code}${reason ? ` “${reason}”` : ""}`, "end");
      ask("/bff/user").catch(() => {});
    });
  }

  function close() {
    const closing = current;
    if (!closing) return;
    ended("closed");
    closing.close(1000);
  }

  button.addEventListener("click", () => (current ? close() : open()));
  by("socket-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = by("socket-text").value;
    if (!text || current?.readyState !== WebSocket.OPEN) return;
    current.send(text);
    log(text, "ours");
    by("socket-text").value = "";
  });
  return { close, lastCode: () => lastCode };
}

/** The attacker's page, let into a frame, and the counts of what it achieved. */
export function forgery(lookAtSession) {
  const attacker = document.body.dataset.attacker;
  let counting = 0;

  async function count() {
    try {
      const { body } = await ask("/api/hand-over");
      say("forged", String(body.forged));
      say("handed-over", String(body.handed_over));
      by("forged").className = body.forged ? "bad" : "good";
      say("still-here", "still there");
      return body;
    } catch (trouble) {
      if (trouble.code === "unauthenticated") say("still-here", "gone");
      return null;
    }
  }

  function keepCounting() {
    clearInterval(counting);
    let times = 10;
    counting = setInterval(() => {
      count();
      if (--times === 0) clearInterval(counting);
    }, 1_000);
  }

  by("attack").addEventListener("click", () => {
    const frame = document.createElement("iframe");
    frame.title = "The attacker’s page";
    frame.src = `${attacker}/`;
    frame.referrerPolicy = "no-referrer";
    by("attacker-frame").replaceChildren(frame);
    frame.addEventListener("load", async () => {
      keepCounting();
      lookAtSession();
      const body = await count();
      if (body) speak(`Forged requests that reached the API: ${body.forged}.`);
    });
  });
  by("attack-tab").addEventListener("click", keepCounting);
  by("hand-over").addEventListener("click", async () => {
    try {
      await ask("/api/hand-over", { method: "POST" });
    } catch {
      // What went wrong shows in the count, or has ended the session.
    }
    count();
  });
  return { close: () => clearInterval(counting) };
}
