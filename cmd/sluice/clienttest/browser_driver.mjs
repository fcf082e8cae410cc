// Drives MQTT.js, STOMP.js, WebSocket and EventSource inside a page in Chromium.
// It speaks the same lines as node_driver.mjs and hands each request to the
// page. The page comes from a server of its own, so that it has an origin of
// its own: the address stands in the first line written.

import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { launch } from './chromium.mjs';

const files = {
  '/': ['text/html', null],
  '/mqtt.js': ['text/javascript', 'node_modules/mqtt/dist/mqtt.min.js'],
  '/stomp.js': ['text/javascript', 'node_modules/@stomp/stompjs/bundles/stomp.umd.min.js'],
  '/clients.mjs': ['text/javascript', 'clients.mjs'],
};
const page = `<!doctype html><meta charset="utf-8"><title>clients</title>
<script src="/mqtt.js"></script><script src="/stomp.js"></script>
<script type="module">
import { makeClients } from '/clients.mjs';
const { WebSocket, EventSource } = window;
window.handle = makeClients({ mqtt, StompClient: StompJs.Client, WebSocket, EventSource, fetch: fetch.bind(window) }, window.emit);
</script>`;

const server = createServer(async (req, res) => {
  const [type, path] = files[req.url] ?? [];
  if (!type) { res.writeHead(404).end(); return; }
  res.writeHead(200, { 'content-type': type });
  res.end(path ? await readFile(new URL(path, import.meta.url)) : page);
});
await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
const origin = `http://127.0.0.1:${server.address().port}`;

const write = (o) => process.stdout.write(JSON.stringify(o) + '\n');
const { context, page: tab, close } = await launch();
const end = () => close().then(() => process.exit(0));
process.on('SIGTERM', end);

tab.on('pageerror', (err) => process.stderr.write(`page: ${err.stack ?? err}\n`));
await tab.exposeFunction('emit', write);
await tab.goto(`${origin}/`);
await tab.waitForFunction(() => window.handle);

const lines = createInterface({ input: process.stdin });
lines.on('line', (line) => {
  const request = JSON.parse(line);
  tab.evaluate((r) => window.handle(r), request).then(
    (ok) => write({ call: request.call, ok: ok ?? {} }),
    (err) => write({ call: request.call, err: String(err?.message ?? err) }),
  );
});
lines.on('close', end);
write({ event: 'ready', origin, version: context.browser()?.version() });
