// A gRPC server in clear text for cloakroom's tests. It says its port on standard output and ends with its standard input.

import grpc from '@grpc/grpc-js';
import { echo } from './echo.mjs';

let cancelled = 0;

function trailers() {
  const metadata = new grpc.Metadata();
  metadata.set('x-trailer', 'from the server');
  return metadata;
}

const server = new grpc.Server();
server.addService(echo, {
  // What the server sees of the call, or the message back.
  Say(call, reply) {
    if (call.request.length) return reply(null, call.request, trailers());
    const seen = {
      authorization: call.metadata.get('authorization'),
      cookie: call.metadata.get('cookie'),
      own: call.metadata.get('x-own'),
      host: call.getHost(),
      deadline: Number(call.getDeadline()) - Date.now(),
      cancelled,
    };
    reply(null, Buffer.from(JSON.stringify(seen)), trailers());
  },
  List(call) {
    let n = 0;
    const timer = setInterval(() => {
      call.write(Buffer.from(`${++n}`));
      if (n === 5) {
        clearInterval(timer);
        call.end(trailers());
      }
    }, 20);
  },
  Talk(call) {
    call.on('data', (message) => call.write(Buffer.concat([Buffer.from('you said '), message])));
    call.on('end', () => call.end(trailers()));
  },
  Fail(_, reply) {
    reply({ code: grpc.status.FAILED_PRECONDITION, details: 'not today: ü', metadata: trailers() });
  },
  Wait(call) {
    call.on('cancelled', () => { cancelled += 1; });
  },
});
server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(port);
});
process.stdin.on('end', () => process.exit(0)).resume();
