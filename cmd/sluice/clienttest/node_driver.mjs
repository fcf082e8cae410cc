// Drives MQTT.js, STOMP.js and ws in Node: one JSON request a line on standard
// input, one JSON answer or event a line on standard output.

import { createInterface } from 'node:readline';
import mqtt from 'mqtt';
import { Client as StompClient } from '@stomp/stompjs';
import { WebSocket } from 'ws';
import { makeClients } from './clients.mjs';

Object.assign(globalThis, { WebSocket });

const write = (o) => process.stdout.write(JSON.stringify(o) + '\n');
const handle = makeClients({ mqtt, StompClient, WebSocket, fetch }, write);

process.on('unhandledRejection', (err) => process.stderr.write(`unhandled: ${err?.stack ?? err}\n`));

const lines = createInterface({ input: process.stdin });
lines.on('line', (line) => {
  const request = JSON.parse(line);
  handle(request).then(
    (ok) => write({ call: request.call, ok: ok ?? {} }),
    (err) => write({ call: request.call, err: String(err?.message ?? err), code: err?.code }),
  );
});
lines.on('close', () => process.exit(0));
write({ event: 'ready' });
