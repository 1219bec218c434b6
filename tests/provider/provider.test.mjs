// Shows that the rig does what the suites rely on: `node --test tests/provider/`. No relying party of ours takes part here.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const redirectUri = 'http://app.localhost:8080/bff/callback';

async function start(t, config) {
  const clients = [{
    client_id: 'app', client_secret: 'secret', redirect_uris: [redirectUri], post_logout_redirect_uris: ['http://app.localhost:8080/'],
    backchannel_logout_uri: config.backchannel,
  }];
  const env = { ...process.env, OP_CONFIG: JSON.stringify({ issuer_host: '127.0.0.1', login: 'auto', clients, ...config }) };
  const child = spawn(process.execPath, [fileURLToPath(new URL('provider.mjs', import.meta.url))], { env, stdio: ['pipe', 'pipe', 'inherit'] });
  t.after(async () => {
    child.stdin.end();
    if (child.exitCode === null) await once(child, 'exit');
  });
  const [line] = await once(createInterface({ input: child.stdout }), 'line');
  const ready = JSON.parse(line);
  const control = async (method, path, body) => (await fetch(ready.control + path, { method, body: body && JSON.stringify(body) })).json();
  return { ...ready, control, child };
}

// Follows the redirects as a browser would, with its cookies, until the relying party's address comes up.
async function follow(url, stop, init = {}, jar = new Map()) {
  let [next, options] = [url, init];
  for (let hop = 0; hop < 12; hop += 1) {
    const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join('; ');
    const answer = await fetch(next, { ...options, redirect: 'manual', headers: { ...options.headers, cookie } });
    for (const line of answer.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
      jar.set(name, value);
    }
    if (!answer.headers.has('location')) return { answer, jar };
    [next, options] = [new URL(answer.headers.get('location'), next).href, {}];
    if (next.startsWith(stop)) return { landed: new URL(next), jar };
  }
  throw new Error('redirected in a circle');
}

async function signIn(op, extra = {}) {
  const verifier = randomBytes(32).toString('base64url');
  const query = new URLSearchParams({
    client_id: 'app', response_type: 'code', redirect_uri: redirectUri, scope: 'openid profile email groups', state: 's', nonce: 'n',
    code_challenge: createHash('sha256').update(verifier).digest('base64url'), code_challenge_method: 'S256', ...extra,
  });
  const { landed, answer } = await follow(`${op.issuer}/auth?${query}`, redirectUri);
  assert.ok(landed, `not sent back: ${answer && await answer.text()}`);
  return { landed, verifier };
}

function token(op, form, query = '') {
  const authorization = `Basic ${Buffer.from('app:secret').toString('base64')}`;
  return fetch(`${op.issuer}/token${query}`, { method: 'POST', headers: { authorization }, body: new URLSearchParams(form) });
}

async function tokens(op, extra) {
  const { landed, verifier } = await signIn(op, extra);
  const code = landed.searchParams.get('code');
  const answer = await token(op, { grant_type: 'authorization_code', code, redirect_uri: redirectUri, code_verifier: verifier });
  assert.equal(answer.status, 200);
  return answer.json();
}

const refresh = (op, refreshToken) => token(op, { grant_type: 'refresh_token', refresh_token: refreshToken });
const claims = (jwt) => JSON.parse(Buffer.from(jwt.split('.')[1], 'base64url'));

test('a code flow with PKCE gives claims in the ID token and a refresh token that rotates', async (t) => {
  const op = await start(t, { access_token_ttl: 3 });
  const { landed } = await signIn(op);
  assert.equal(landed.searchParams.get('iss'), op.issuer);
  const first = await tokens(op, { login_hint: 'bob' });
  assert.equal(first.expires_in, 3);
  const { sub, email, groups, nonce } = claims(first.id_token);
  assert.deepEqual({ sub, email, groups, nonce }, { sub: 'bob', email: 'bob@example.test', groups: ['staff'], nonce: 'n' });
  const second = await (await refresh(op, first.refresh_token)).json();
  assert.notEqual(second.refresh_token, first.refresh_token);
  assert.notEqual(second.access_token, first.access_token);
  assert.equal((await refresh(op, first.refresh_token)).status, 400, 'a used refresh token');
  assert.equal((await refresh(op, second.refresh_token)).status, 400, 'its reuse ends the grant');
});

test('a request without PKCE is refused and prompt=none says login_required', async (t) => {
  const op = await start(t, {});
  const { landed: refused } = await signIn(op, { code_challenge: '', code_challenge_method: '' });
  assert.equal(refused.searchParams.get('error'), 'invalid_request');
  const { landed } = await signIn(op, { prompt: 'none' });
  assert.equal(landed.searchParams.get('error'), 'login_required');
});

test('jwt access tokens are at+jwt and carry the scopes that were asked for', async (t) => {
  const op = await start(t, { token_format: 'jwt' });
  const got = await tokens(op, { scope: 'openid orders.read' });
  const head = JSON.parse(Buffer.from(got.access_token.split('.')[0], 'base64url'));
  assert.equal(head.typ, 'at+jwt');
  assert.ok(got.scope.split(' ').includes('orders.read'), got.scope);
  assert.ok((await (await refresh(op, got.refresh_token)).json()).scope.includes('orders.read'));
});

test('without rotation the refresh token may be absent or the same', async (t) => {
  const op = await start(t, { rotate: false });
  const { refresh_token: kept } = await tokens(op);
  const answer = await (await refresh(op, kept)).json();
  assert.ok(answer.refresh_token === undefined || answer.refresh_token === kept);
});

test('token calls are counted, answered with a status, cut before the work and cut after it', async (t) => {
  const op = await start(t, {});
  const got = await tokens(op);
  await op.control('POST', '/control', { token: { next: 2, status: 503 } });
  assert.equal((await refresh(op, got.refresh_token)).status, 503);
  await op.control('POST', '/control', { token: { drop: 'before', grant: 'refresh_token' } });
  await assert.rejects(refresh(op, got.refresh_token));
  const renewed = await (await refresh(op, got.refresh_token)).json();
  await op.control('POST', '/control', { token: { drop: 'after' } });
  await assert.rejects(refresh(op, renewed.refresh_token));
  assert.equal((await refresh(op, renewed.refresh_token)).status, 400, 'the work was done, the answer lost');
  assert.deepEqual((await op.control('GET', '/control/counts')).token, { authorization_code: 1, refresh_token: 5 });
  assert.match((await op.control('GET', '/control/last-callback')).location, /bff\/callback\?code=/);
});

test('the log tells who called, what came of it, and whether the answer was delivered', async (t) => {
  const op = await start(t, { log: true });
  const call = (name, form) => token(op, form, `?by=${name}`);
  const { landed, verifier } = await signIn(op, { login_hint: 'bob' });
  const grant = { grant_type: 'authorization_code', code: landed.searchParams.get('code'), redirect_uri: redirectUri, code_verifier: verifier };
  const got = await (await call('a1', grant)).json();
  const renew = (name, refreshToken) => call(name, { grant_type: 'refresh_token', refresh_token: refreshToken });
  const weather = (kind) => op.control('POST', '/control', { weather: { seed: 7, [kind]: { share: 1, of: [500], ms: [30, 60] } } });
  await weather('status');
  assert.equal((await renew('a1', got.refresh_token)).status, 500);
  await weather('drop_before');
  await assert.rejects(renew('a1', got.refresh_token));
  await weather('delay');
  const second = await (await renew('b2', got.refresh_token)).json();
  await weather('late');
  const third = await (await renew('b2', second.refresh_token)).json();
  await weather('drop_after');
  await assert.rejects(renew('a1', third.refresh_token));
  await op.control('POST', '/control', { weather: null });
  assert.equal((await renew('b2', third.refresh_token)).status, 400);
  const log = await op.control('GET', '/control/log');
  const seen = log.map(({ by, luck, worked, status, delivered, sub }) => [by, luck, worked, status, delivered, sub]);
  assert.deepEqual(seen, [
    ['a1', null, true, 200, true, 'bob'],
    ['a1', 'status', false, 500, true, null],
    ['a1', 'drop_before', false, null, false, null],
    ['b2', 'delay', true, 200, true, 'bob'],
    ['b2', 'late', true, 200, true, 'bob'],
    ['a1', 'drop_after', true, 200, false, 'bob'],
    ['b2', null, true, 400, true, null],
  ]);
  assert.equal(log[3].presented, got.refresh_token);
  assert.equal(log[3].refresh_token, second.refresh_token);
  assert.ok(log[3].issued - log[3].at >= 30 && log[4].ended - log[4].issued >= 30, JSON.stringify(log));
});

test('an ended grant is invalid_grant and rotated keys have another kid', async (t) => {
  const op = await start(t, {});
  const got = await tokens(op);
  await op.control('POST', '/control/end-grant', { sub: 'alice' });
  const answer = await refresh(op, got.refresh_token);
  assert.equal((await answer.json()).error, 'invalid_grant');
  const kids = async () => (await (await fetch(`${op.issuer}/jwks`)).json()).keys.map(({ kid }) => kid);
  const before = await kids();
  await op.control('POST', '/control/rotate-keys', {});
  const after = await kids();
  assert.equal(after.length, 1);
  assert.notDeepEqual(before, after);
  await tokens(op);
});

test('signing out at the provider tells the client and leads back to it', async (t) => {
  const told = [];
  const client = createServer(async (req, res) => {
    const chunks = [];
    for await (const chunk of req) chunks.push(chunk);
    told.push([req.headers.host, new URLSearchParams(Buffer.concat(chunks).toString()).get('logout_token')]);
    res.end();
  }).listen(0, '127.0.0.1');
  await once(client, 'listening');
  t.after(() => client.close());
  const host = `app.localhost:${client.address().port}`;
  const op = await start(t, { backchannel: `http://${host}/bff/backchannel-logout` });
  const got = await tokens(op);
  assert.ok(claims(got.id_token).sid);
  assert.deepEqual(await op.control('POST', '/control/backchannel-logout', { sub: 'alice' }), { sent: 1, failed: [] });
  assert.equal(told[0][0], host);
  assert.equal(claims(told[0][1]).sid, claims(got.id_token).sid);
  const back = 'http://app.localhost:8080/';
  const { answer, jar } = await follow(`${op.issuer}/session/end?${new URLSearchParams({ id_token_hint: got.id_token, post_logout_redirect_uri: back })}`, back);
  const [, action, xsrf] = /action="([^"]+)".*name="xsrf" value="([^"]+)"/s.exec(await answer.text());
  const { landed } = await follow(action, back, { method: 'POST', body: new URLSearchParams({ xsrf, logout: 'yes' }) }, jar);
  assert.equal(landed.href, back);
});

test('it ends when its stdin closes', async (t) => {
  const op = await start(t, {});
  op.child.stdin.end();
  const [code] = await once(op.child, 'exit');
  assert.equal(code, 0);
});
