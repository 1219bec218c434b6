// A certified OpenID Provider (panva's oidc-provider) for the tests: nobody here wrote it, so what works with it was not
// bent to fit. This file only configures it and puts a door in front that can count, delay and break token calls.
//
//     node tests/provider/provider.mjs        with OP_CONFIG in the environment (JSON, every key but `clients` optional):
//
//     issuer_host       "op.localhost" (default) or "127.0.0.1": the issuer is http://HOST:PORT
//     port              0 (default: any free one). Everything listens on 127.0.0.1, whatever the issuer's name
//     clients           client metadata by their registered names; basic authentication and the code and refresh grants unless said otherwise
//     access_token_ttl  seconds, 30 by default
//     rotate            true (default): every refresh gives a new refresh token, and the reuse of an old one ends the grant;
//                       false: never; "default": when the library thinks so (after 70 % of a confidential client's token life)
//     token_format      "opaque" (default) or "jwt" (RFC 9068 `at+jwt` for the audience "urn:test:api"; the library then
//                       refuses such a token at the userinfo endpoint)
//     login             "form" (default): a page with #username, #sign-in and #cancel; "auto": signs in `login_hint`, or alice, at once
//     logout            "auto" (default): the logout page submits itself; "form": it waits for #logout-yes
//     scopes            further scopes beside openid, offline_access, profile, email, groups and orders.read
//     accounts          claims by username, over the defaults of `claimsOf`; any username may sign in
//     default_max_age   as in client metadata; absent by default
//     log               true: every token call is remembered (GET /control/log); replicas that call /token?by=NAME are told apart
//
// When it serves, one line of JSON on stdout: {"issuer":…,"port":…,"control":…}. Everything else goes to stderr. It exits
// when its stdin closes, so it never outlives the test that holds the other end.
//
// The control door, plain HTTP with JSON on a port of its own:
//
//     POST /control               {"token":{"next":N, …}}: what happens to the next N token calls: "status" (with "error") answers
//                                 without doing the work, "delay_ms" waits first, "drop":"before"|"after" cuts the connection before
//                                 or after the work, "grant" narrows it to one grant type. {"token":null} takes it back
//     POST /control               {"weather":{"seed":N, …}}: from now on each refresh call may have bad luck, each kind with its "share" of
//                                 calls (0 to 1): "delay" waits "ms":[least, most] before the work, "late" and "too_late" wait so after it, "status"
//                                 answers one "of":[…] without the work, "drop_before" and "drop_after" cut. {"weather":null} clears the sky
//     GET  /control/log           every token call so far, in order (see `remember`)
//     GET  /control/counts        calls so far: token by grant type, revocation, userinfo, jwks, discovery, authorization, end_session
//     GET  /control/last-callback {"location":…}: where the last browser was sent back to, code and all
//     POST /control/rotate-keys   from now on sign with a new key, and publish only that one ({"keep_old":true}: both)
//     POST /control/end-grant     every grant and token dies ({"sub":…}: that account's): the next refresh is `invalid_grant`
//     POST /control/backchannel-logout   {"sub":…[,"client_id":…]}: logout tokens to the clients that this account is signed in to

import { spawn } from 'node:child_process';
import crypto, { createPrivateKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import http from 'node:http';
import { fileURLToPath } from 'node:url';
import { MapAdapter, entries } from './adapter.mjs';
import { Weather } from './weather.mjs';
import { cancelPage, loginPage, logoutPage, readForm, readJson, sendJson, sendPage } from './pages.mjs';

// The library needs Node 20.19 or newer. Debian 12 has 18: there `tests/run` puts a newer one beside the build, and this hands over.
if (!crypto.hash || !URL.parse) {
  const newer = fileURLToPath(new URL(`../../target/tools/node/node_modules/node-linux-${process.arch}/bin/node`, import.meta.url));
  spawn(newer, process.argv.slice(1), { stdio: 'inherit' })
    .on('error', () => { console.error(`Node ${process.version} is too old for the test provider: tests/run brings a newer one`); process.exit(1); })
    .on('exit', (code) => process.exit(code ?? 1));
  await new Promise(() => {});
}

console.log = console.error;
console.info = console.error; // the library's notices; stdout belongs to the ready line
const { Provider } = await import('oidc-provider');

const config = {
  issuer_host: 'op.localhost', port: 0, clients: [], access_token_ttl: 30, rotate: true, token_format: 'opaque',
  login: 'form', logout: 'auto', scopes: [], accounts: {}, ...JSON.parse(process.env.OP_CONFIG ?? '{}'),
};

const scopes = ['openid', 'offline_access', 'profile', 'email', 'groups', 'orders.read', ...config.scopes];
const cookieKey = randomBytes(32).toString('base64url');
const counts = { token: {}, revocation: 0, userinfo: 0, jwks: 0, discovery: 0, authorization: 0, end_session: 0 };
const log = [];
let fault = null;
let weather = null;
let lastCallback = null;
let keys = [newSigningKey()];

// Through PEM: exporting the very key that was generated now and then deadlocks Node 20 (it collects the generator's garbage
// in the middle of the export, and both want the key's lock).
function newSigningKey() {
  const { privateKey: pem } = generateKeyPairSync('rsa', {
    modulusLength: 2048, publicKeyEncoding: { type: 'spki', format: 'pem' }, privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  });
  return { ...createPrivateKey(pem).export({ format: 'jwk' }), use: 'sig', alg: 'RS256', kid: randomBytes(6).toString('hex') };
}

function claimsOf(sub) {
  const name = sub.charAt(0).toUpperCase() + sub.slice(1);
  return {
    sub, name, preferred_username: sub, email: `${sub}@example.test`, email_verified: true,
    groups: sub === 'alice' ? ['staff', 'admins'] : ['staff'], ...config.accounts[sub],
  };
}

// One grant that covers whatever is asked for: the tests are about the relying party, not about consent.
async function grantEverything(ctx) {
  const { client, session, params, provider } = ctx.oidc;
  const known = session.grantIdFor(client.clientId);
  const grant = (known && await provider.Grant.find(known))
    || new provider.Grant({ accountId: session.accountId, clientId: client.clientId });
  grant.addOIDCScope(params.scope);
  grant.addOIDCClaims(['acr', 'auth_time']);
  if (config.token_format === 'jwt') grant.addResourceScope('urn:test:api', params.scope);
  await grant.save();
  return grant;
}

// The library's own fetch refuses loopback, and the system's resolver does not know *.localhost: both are where the tests live.
function fetchFromLoopback(url, { method = 'GET', headers, body }) {
  const { hostname, port, pathname, search, host } = new URL(url);
  const loopback = hostname.endsWith('.localhost') ? '127.0.0.1' : hostname;
  const payload = body === undefined ? undefined : Buffer.from(String(body));
  return new Promise((resolve, reject) => {
    const sent = { ...Object.fromEntries(new Headers(headers)), host, ...(payload && { 'content-length': payload.length }) };
    const request = http.request({ host: loopback, port, path: pathname + search, method, headers: sent }, (answer) => {
      const chunks = [];
      answer.on('data', (chunk) => chunks.push(chunk));
      answer.on('end', () => resolve(new Response(answer.statusCode === 204 ? null : Buffer.concat(chunks), { status: answer.statusCode })));
    });
    request.setTimeout(5000, () => request.destroy(new Error('no answer within 5 s')));
    request.on('error', reject).end(payload);
  });
}

function buildProvider(issuer) {
  const jwt = config.token_format === 'jwt';
  const provider = new Provider(issuer, {
    adapter: MapAdapter,
    jwks: { keys },
    clients: config.clients.map((client) => ({
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: 'client_secret_basic',
      ...(client.backchannel_logout_uri && { backchannel_logout_session_required: true }),
      ...(config.default_max_age && { default_max_age: config.default_max_age }),
      ...client,
    })),
    cookies: { keys: [cookieKey] },
    clientAuthMethods: ['client_secret_basic', 'client_secret_post'],
    pkce: { required: () => true },
    scopes,
    acrValues: ['low', 'high'],
    claims: {
      openid: ['sub'], profile: ['name', 'preferred_username'], email: ['email', 'email_verified'],
      groups: ['groups'], acr: null, auth_time: null,
    },
    conformIdTokenClaims: false,
    findAccount: (_ctx, sub) => ({ accountId: sub, claims: () => claimsOf(sub) }),
    loadExistingGrant: grantEverything,
    issueRefreshToken: (_ctx, client) => client.grantTypeAllowed('refresh_token'),
    ...(config.rotate !== 'default' && { rotateRefreshToken: config.rotate }),
    ttl: {
      AccessToken: config.access_token_ttl, AuthorizationCode: 60, IdToken: 3600, RefreshToken: 86400,
      Grant: 86400, Session: 86400, Interaction: 600,
    },
    clockTolerance: 0,
    fetch: fetchFromLoopback,
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    features: {
      devInteractions: { enabled: false },
      revocation: { enabled: true },
      userinfo: { enabled: true },
      backchannelLogout: { enabled: true },
      rpInitiatedLogout: {
        enabled: true,
        logoutSource: (ctx, form) => { ctx.body = logoutPage(form, config.logout === 'auto'); },
        postLogoutSuccessSource: (ctx) => { ctx.body = '<!doctype html><title>Signed out</title><p>Signed out at the provider.'; },
      },
      resourceIndicators: {
        enabled: jwt,
        defaultResource: () => 'urn:test:api',
        useGrantedResource: () => true,
        getResourceServerInfo: (_ctx, audience) => ({ scope: scopes.join(' '), audience, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } } }),
      },
    },
  });
  provider.on('server_error', (_ctx, error) => console.error('provider:', error));
  return provider;
}

async function interact(req, res) {
  const details = await provider.interactionDetails(req, res);
  const { login_hint: hint, acr_values: acr } = details.params;
  const finish = (result) => provider.interactionFinished(req, res, result, { mergeWithLastSubmission: false });
  const signIn = (accountId) => finish({ login: { accountId, ...(acr && { acr: acr.split(' ')[0] }) }, consent: {} });
  if (details.prompt.name !== 'login') return finish({ ...details.lastSubmission, consent: {} });
  if (config.login === 'auto') return signIn(hint || 'alice');
  if (req.method !== 'POST') return sendPage(res, 200, loginPage(hint ?? ''));
  const form = await readForm(req);
  if (form.get('cancel')) return finish({ error: 'access_denied', error_description: 'the user said no' });
  const username = form.get('username');
  return username ? signIn(username) : sendPage(res, 400, loginPage(''));
}

const pause = (milliseconds) => new Promise((resolve) => { setTimeout(resolve, milliseconds); });

// What came of one token call; times in milliseconds since the epoch. `ended` is when the answer was on its way (`delivered`) or the
// connection closed without it; `refresh_token` and `access_token` are what was issued, so `worked` and 400 together are a refusal.
function remember(req, res, form) {
  const call = {
    at: Date.now(), by: new URL(req.url, 'http://x').searchParams.get('by'), grant: form.get('grant_type'), presented: form.get('refresh_token'), luck: null,
    worked: false, status: null, refresh_token: null, access_token: null, sub: null, issued: null, ended: null, delivered: false,
  };
  log.push(call);
  const end = (delivered) => { if (call.ended === null) Object.assign(call, { ended: Date.now(), delivered }); };
  res.on('finish', () => end(true)).on('close', () => end(false));
  return call;
}

function rememberAnswer(call, status, body) {
  Object.assign(call, { worked: true, status, issued: Date.now() });
  if (status !== 200 || !body) return; // without a body: the caller was gone before there was one
  const { access_token: accessToken, refresh_token: refreshToken, id_token: idToken } = JSON.parse(body);
  const { sub } = JSON.parse(Buffer.from(idToken.split('.')[1], 'base64url'));
  Object.assign(call, { access_token: accessToken, refresh_token: refreshToken, sub });
}

// Reads the form to know its grant type, breaks the call if it was told to, and else hands the form on.
async function tokenCall(req, res, handle) {
  const form = await readForm(req);
  const grant = form.get('grant_type') ?? 'none';
  counts.token[grant] = (counts.token[grant] ?? 0) + 1;
  req.body = Object.fromEntries(form);
  const call = config.log ? remember(req, res, form) : null;
  const now = fault && (!fault.grant || fault.grant === grant) ? fault : grant === 'refresh_token' ? weather?.luck() : null;
  if (now && now === fault && --now.next <= 0) fault = null;
  if (call && now) call.luck = now.name ?? 'fault';
  if (now?.delay_ms) await pause(now.delay_ms);
  if (req.socket.destroyed) return undefined; // nobody is there any more
  if (now?.drop === 'before') return req.socket.destroy();
  if (now?.status) {
    if (call) call.status = now.status;
    return sendJson(res, now.status, { error: now.error ?? 'temporarily_unavailable' });
  }
  const end = res.end.bind(res);
  res.end = (body, ...rest) => {
    if (call) rememberAnswer(call, res.statusCode, body);
    if (now?.drop === 'after') req.socket.destroy();
    else if (now?.late_ms) pause(now.late_ms).then(() => end(body, ...rest));
    else end(body, ...rest);
    return res;
  };
  return handle(req, res);
}

const counted = {
  '/token/revocation': 'revocation', '/me': 'userinfo', '/jwks': 'jwks', '/auth': 'authorization',
  '/.well-known/openid-configuration': 'discovery', '/session/end': 'end_session',
};

async function serve(req, res) {
  const path = new URL(req.url, 'http://x').pathname;
  req.headers.host = `${config.issuer_host}:${server.address().port}`; // one name, however it was reached
  res.on('finish', () => {
    const to = res.getHeader('location');
    if (path.startsWith('/auth') && /[?&](code|error)=/.test(to ?? '')) lastCallback = to;
  });
  if (path in counted) counts[counted[path]] += 1;
  if (path.startsWith('/interaction/')) return interact(req, res);
  if (path === '/token' && req.method === 'POST') return tokenCall(req, res, handler);
  return handler(req, res);
}

async function logOutAtClients({ sub, client_id: only }) {
  const sent = [];
  for (const session of entries('Session').filter((one) => one.accountId === sub)) {
    for (const [id, { sid }] of Object.entries(session.authorizations ?? {})) {
      const client = await provider.Client.find(id);
      if (client?.backchannelLogoutUri && (!only || only === id)) sent.push(client.backchannelLogout(sub, sid));
    }
  }
  const results = await Promise.allSettled(sent);
  return { sent: results.length, failed: results.filter(({ status }) => status === 'rejected').map(({ reason }) => reason.message) };
}

const controls = {
  'POST /control': (wish) => {
    if ('token' in wish) fault = wish.token ? { next: 1, ...wish.token } : null;
    if ('weather' in wish) weather = wish.weather && new Weather(wish.weather);
  },
  'GET /control/log': () => log,
  'GET /control/counts': () => counts,
  'GET /control/last-callback': () => ({ location: lastCallback }),
  'POST /control/rotate-keys': ({ keep_old: keep }) => {
    keys = keep ? [newSigningKey(), ...keys] : [newSigningKey()];
    provider = buildProvider(issuer);
    handler = provider.callback();
  },
  'POST /control/end-grant': ({ sub }) => {
    const kinds = ['Grant', 'RefreshToken', 'AccessToken', 'AuthorizationCode'];
    return { ended: MapAdapter.forget((kind, payload) => kinds.includes(kind) && (!sub || payload.accountId === sub)) };
  },
  'POST /control/backchannel-logout': logOutAtClients,
};

async function control(req, res) {
  const action = controls[`${req.method} ${req.url}`];
  if (!action) return sendJson(res, 404, { error: 'no such control' });
  return sendJson(res, 200, (await action(await readJson(req))) ?? {});
}

function listen(answer, port) {
  return new Promise((resolve, reject) => {
    const listening = http.createServer((req, res) => {
      answer(req, res).catch((error) => {
        console.error('provider:', error.message);
        if (!res.headersSent) sendPage(res, 400, cancelPage(error.message));
      });
    });
    listening.on('error', reject).listen(port, '127.0.0.1', () => resolve(listening));
  });
}

const server = await listen((req, res) => serve(req, res), config.port);
const issuer = `http://${config.issuer_host}:${server.address().port}`;
let provider = buildProvider(issuer);
let handler = provider.callback();
const door = await listen(control, 0);

process.stdin.on('end', () => process.exit(0)).on('error', () => process.exit(0)).resume();
process.stdout.write(`${JSON.stringify({ issuer, port: server.address().port, control: `http://127.0.0.1:${door.address().port}` })}\n`);
