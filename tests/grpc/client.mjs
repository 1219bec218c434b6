// A gRPC client over TLS for cloakroom's tests: makes every kind of call and says as JSON what came of it. GRPC_CLIENT is
// JSON: `address` to connect to, `authority` as the server calls itself, `ca` (a file), `cookie`.

import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import grpc from '@grpc/grpc-js';
import { echo } from './echo.mjs';

const { address, authority, ca, cookie } = JSON.parse(process.env.GRPC_CLIENT);
const Client = grpc.makeGenericClientConstructor(echo, 'Echo');
const client = new Client(address, grpc.credentials.createSsl(readFileSync(ca)), {
  'grpc.ssl_target_name_override': authority.split(':')[0],
  'grpc.default_authority': authority,
});

function metadata(withCookie = true) {
  const metadata = new grpc.Metadata();
  metadata.set('x-csrf', '1');
  metadata.set('x-own', 'from the client');
  metadata.set('authorization', 'Bearer made-up');
  if (withCookie) metadata.set('cookie', cookie);
  return metadata;
}

// One call with one answer.
function call(method, message = Buffer.alloc(0), { deadline, withCookie } = {}) {
  return new Promise((resolve) => {
    const result = {};
    const options = { deadline: Date.now() + (deadline ?? 20000) };
    const calling = client[method](message, metadata(withCookie), options, (error, answer) => {
      result.answer = answer?.length < 10000 ? answer.toString() : answer?.equals(message);
      if (error) Object.assign(result, { code: error.code, details: error.details });
    });
    calling.on('status', (status) => {
      result.trailer = status.metadata.get('x-trailer');
      setImmediate(() => resolve(result));
    });
  });
}

async function list() {
  const messages = [];
  const calling = client.List(Buffer.alloc(0), metadata());
  calling.on('data', (message) => messages.push(message.toString()));
  const [status] = await once(calling, 'status');
  return { messages, code: status.code, trailer: status.metadata.get('x-trailer') };
}

// Each message waits for the answer to the one before it.
async function talk() {
  const messages = [];
  const calling = client.Talk(metadata());
  const status = once(calling, 'status');
  for (const word of ['one', 'two', 'three']) {
    calling.write(Buffer.from(word));
    const [answer] = await once(calling, 'data');
    messages.push(answer.toString());
  }
  calling.end();
  const [{ code, metadata: trailers }] = await status;
  return { messages, code, trailer: trailers.get('x-trailer') };
}

async function cancelled() {
  for (;;) {
    const seen = JSON.parse((await call('Say')).answer);
    if (seen.cancelled > 0) return true;
  }
}

const result = {
  seen: JSON.parse((await call('Say')).answer),
  said: await call('Say', Buffer.from('hello')),
  large: await call('Say', Buffer.alloc(3_000_000, 7)),
  listed: await list(),
  talked: await talk(),
  failed: await call('Fail'),
  late: await call('Wait', undefined, { deadline: 300 }),
  cancelled: await cancelled(),
  anonymous: await call('Say', undefined, { withCookie: false }),
  together: await Promise.all(Array.from({ length: 50 }, (_, n) => call('Say', Buffer.from(`${n}`)))),
};
console.log(JSON.stringify(result));
client.close();
