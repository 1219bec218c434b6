// The provider's few pages and the reading and writing of small bodies.

const escape = (text) => String(text).replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);

const page = (title, body) => `<!doctype html><html lang="en"><meta charset="utf-8"><title>${title}</title>
<meta name="viewport" content="width=device-width"><body><main><h1>${title}</h1>${body}</main></body></html>`;

export const loginPage = (hint) => page('Test provider: sign in', `<form method="post">
<label for="username">Username</label> <input id="username" name="username" value="${escape(hint)}" autocomplete="username" autofocus>
<button id="sign-in" type="submit">Sign in</button>
<button id="cancel" type="submit" name="cancel" value="yes">Cancel</button></form>`);

// `form` is the library's own, with the id "op.logoutForm" and without a button.
export const logoutPage = (form, atOnce) => page('Test provider: sign out', `${form}
<button id="logout-yes" type="submit" form="op.logoutForm" name="logout" value="yes">Sign out</button>
${atOnce ? '<script>document.getElementById("logout-yes").click();</script>' : ''}`);

export const cancelPage = (message) => page('Test provider: error', `<p id="error">${escape(message)}</p>`);

async function read(req) {
  const chunks = [];
  for await (const chunk of req) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

export const readForm = async (req) => new URLSearchParams(await read(req));
export const readJson = async (req) => JSON.parse((await read(req)) || '{}');

export function sendPage(res, status, html) {
  res.writeHead(status, { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store' }).end(html);
}

export function sendJson(res, status, value) {
  res.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' }).end(JSON.stringify(value));
}
