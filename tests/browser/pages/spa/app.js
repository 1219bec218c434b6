// What a single-page app does with a BFF: ask who is there, offer to sign in, call the API, and notice a 401.

const show = (id, visible) => { document.getElementById(id).hidden = !visible; };
const say = (text) => { document.getElementById('state').innerText = text; };

function signedOut(why) {
  document.getElementById('sign-in').href = `/bff/login?return_to=${encodeURIComponent(location.pathname + location.search)}`;
  show('sign-in', true);
  show('sign-out', false);
  show('logout-link', false);
  say(why);
}

async function ask() {
  const answer = await fetch('/bff/user');
  if (answer.status === 401) return signedOut('signed out');
  if (!answer.ok) return say(`the BFF says ${answer.status}`);
  const user = await answer.json();
  document.getElementById('logout-link').href = user.logout_url;
  show('sign-in', false);
  show('sign-out', true);
  show('logout-link', true);
  return say(`signed in as ${user.claims.name}`);
}

// The API's status; a 401 shows the way back in and starts nothing by itself.
window.callApi = async (path = '/api/whoami') => {
  const answer = await fetch(path);
  document.getElementById('result').innerText = `${answer.status} ${await answer.text()}`;
  if (answer.status === 401) signedOut('the session has ended');
  return answer.status;
};

// Calls the API again and again, and counts what came back.
window.statuses = {};
window.keepCalling = (milliseconds) => setInterval(async () => {
  const status = await window.callApi();
  window.statuses[status] = (window.statuses[status] ?? 0) + 1;
}, milliseconds);

// A page that the back button brings back out of the browser's cache shows what was true when it was left.
addEventListener('pageshow', (event) => event.persisted && ask());

ask();
