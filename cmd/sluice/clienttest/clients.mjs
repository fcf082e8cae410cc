// The clients of MQTT.js, STOMP.js, the WebSocket and the EventSource behind one
// set of operations, for Node and for a page in a browser alike. Nothing here
// knows what a message means: the tests say each request in the protocol's own
// words and read each answer likewise.
//
// makeClients gets the libraries and a function that takes events, and returns
// a function from an operation to a promise of its result.

const toBytes = (b64) => Uint8Array.from(atob(b64), (c) => c.charCodeAt(0));

function toBase64(bytes) {
  let s = '';
  for (let i = 0; i < bytes.length; i += 0x8000) {
    s += String.fromCharCode.apply(null, bytes.subarray(i, i + 0x8000));
  }
  return btoa(s);
}

export function makeClients({ mqtt, StompClient, WebSocket, EventSource, fetch }, emit) {
  const conns = new Map();
  let receipts = 0;

  const ops = {
    // MQTT.js.

    'mqtt.connect': ({ conn, url, clientId, clean, version, sessionExpiry, receiveMaximum, topicAliasMaximum, reconnect, username, password, will, ca, cert, key }) =>
      new Promise((resolve, reject) => {
        const properties = { sessionExpiryInterval: sessionExpiry, receiveMaximum, topicAliasMaximum };
        for (const name in properties) if (properties[name] === undefined) delete properties[name];
        const client = mqtt.connect(url, {
          clientId, clean, protocolVersion: version ?? 5, properties, username, password,
          will: will && { ...will, properties: { willDelayInterval: will.delay ?? 0, userProperties: { from: 'the will' } } }, ca, cert, key,
          reconnectPeriod: reconnect ?? 0, connectTimeout: 60_000, keepalive: 60,
        });
        const c = { close: () => client.connected && client.endAsync(), drop: () => client.stream.destroy(), client, hold: false };
        c.failed = new Promise((_, fail) => {
          if (reconnect) return; // a lost connection is the library's to mend
          client.on('error', fail);
          client.on('close', () => fail(new Error('the connection was closed')));
        });
        c.failed.catch(() => {});
        conns.set(conn, c);
        // A held message is not acknowledged and keeps those behind it waiting.
        client.handleMessage = (_packet, done) => { if (!c.hold) done(); };
        client.on('message', (topic, payload, packet) => {
          const { properties: p } = packet;
          emit({
            conn, event: 'message', topic, payload: toBase64(payload),
            qos: packet.qos, retain: packet.retain, dup: packet.dup,
            properties: p && {
              contentType: p.contentType, responseTopic: p.responseTopic,
              correlationData: p.correlationData && toBase64(p.correlationData),
              messageExpiryInterval: p.messageExpiryInterval,
              topicAlias: p.topicAlias,
              payloadFormatIndicator: p.payloadFormatIndicator === undefined ? undefined : Number(p.payloadFormatIndicator),
              // MQTT.js gathers repeats under their name: the order between
              // names is that of each name's first.
              userProperties: Object.entries(p.userProperties ?? {}).flatMap(
                ([k, v]) => [v].flat().map((one) => [k, one])),
              subscriptionIds: [p.subscriptionIdentifier ?? []].flat(),
            },
          });
        });
        client.once('connect', (ack) => resolve({ sessionPresent: ack.sessionPresent }));
        c.failed.catch(reject);
        client.on('close', () => emit({ conn, event: 'closed' }));
        client.on('disconnect', (p) => emit({ conn, event: 'disconnect', code: p.reasonCode }));
      }),
    'mqtt.hold': ({ conn }) => { conns.get(conn).hold = true; return {}; },
    'mqtt.subscribe': async ({ conn, filters, qos, userProperties, subscriptionId, noLocal, retainAsPublished, retainHandling }) => {
      const { client, failed } = conns.get(conn);
      const properties = {};
      if (userProperties) properties.userProperties = gather(userProperties);
      if (subscriptionId) properties.subscriptionIdentifier = subscriptionId;
      const grants = await Promise.race([failed, client.subscribeAsync(filters, {
        qos, nl: noLocal, rap: retainAsPublished, rh: retainHandling, properties,
      })]);
      return { granted: grants.map((g) => g.qos) };
    },
    'mqtt.unsubscribe': async ({ conn, filter }) => { await conns.get(conn).client.unsubscribeAsync(filter); return {}; },
    'mqtt.publish': async ({ conn, topic, payload, qos, retain, properties: p }) => {
      const properties = p && {
        ...p,
        correlationData: p.correlationData && nodeBuffer(toBytes(p.correlationData)),
        payloadFormatIndicator: p.payloadFormatIndicator === undefined ? undefined : Boolean(p.payloadFormatIndicator),
        userProperties: p.userProperties && gather(p.userProperties),
      };
      const { client, failed } = conns.get(conn);
      const ack = await Promise.race([failed, client.publishAsync(topic, nodeBuffer(toBytes(payload)), { qos, retain, properties })]);
      return { code: ack?.reasonCode ?? 0 };
    },

    // STOMP.js.

    'stomp.connect': ({ conn, url, headers }) =>
      new Promise((resolve, reject) => {
        const client = new StompClient({
          webSocketFactory: () => new WebSocket(url, ['v12.stomp', 'v11.stomp', 'v10.stomp']),
          connectHeaders: headers ?? {}, reconnectDelay: 0,
          heartbeatIncoming: 0, heartbeatOutgoing: 0,
        });
        conns.set(conn, {
          client, messages: new Map(),
          close: () => client.deactivate(),
          drop: () => client.deactivate({ force: true }),
        });
        client.onConnect = (f) => resolve({ headers: f.headers });
        client.onStompError = (f) => {
          emit({ conn, event: 'error', headers: Object.entries(f.headers), body: toBase64(f.binaryBody) });
          reject(new Error(`ERROR ${f.headers.message}`));
        };
        client.onWebSocketClose = () => { emit({ conn, event: 'closed' }); reject(new Error('closed')); };
        client.activate();
      }),
    'stomp.subscribe': ({ conn, destination, id, ack, headers }) =>
      receipted(conn, (receipt) => {
        const c = conns.get(conn);
        c.client.subscribe(destination, (m) => {
          c.messages.set(m.headers.ack ?? m.headers['message-id'], m);
          emit({ conn, event: 'message', headers: Object.entries(m.headers), body: toBase64(m.binaryBody) });
        }, { ...headers, id, ack: ack ?? 'auto', receipt });
      }),
    'stomp.send': ({ conn, destination, headers, body }) =>
      receipted(conn, (receipt) => conns.get(conn).client.publish({
        destination, binaryBody: toBytes(body), headers: { ...firstOfEach(headers ?? []), receipt },
      })),
    'stomp.unsubscribe': ({ conn, id }) =>
      receipted(conn, (receipt) => conns.get(conn).client.unsubscribe(id, { receipt })),
    'stomp.ack': ({ conn, id, headers }) =>
      receipted(conn, (receipt) => conns.get(conn).messages.get(id).ack({ ...headers, receipt })),
    'stomp.nack': ({ conn, id, headers }) =>
      receipted(conn, (receipt) => conns.get(conn).messages.get(id).nack({ ...headers, receipt })),

    // The library asks no receipts of these; the one of a frame behind them
    // speaks for them.
    'stomp.begin': ({ conn, transaction }) => { conns.get(conn).client.begin(transaction); return behind(conn); },
    'stomp.commit': ({ conn, transaction }) => { conns.get(conn).client.commit(transaction); return behind(conn); },
    'stomp.abort': ({ conn, transaction }) => { conns.get(conn).client.abort(transaction); return behind(conn); },

    // The WebSocket itself, for the native protocol: frames in, frames out.

    'ws.connect': ({ conn, url, protocols, headers }) =>
      new Promise((resolve, reject) => {
        const ws = headers ? new WebSocket(url, protocols ?? [], { headers }) : new WebSocket(url, protocols ?? []);
        ws.binaryType = 'arraybuffer';
        conns.set(conn, { ws, close: () => ws.close(), drop: () => (ws.terminate ?? ws.close).call(ws) });
        ws.onopen = () => resolve({ protocol: ws.protocol });
        ws.onerror = (e) => reject(new Error(e.message ?? 'the WebSocket was refused'));
        ws.onclose = (e) => { emit({ conn, event: 'closed', code: e.code }); reject(new Error(`closed: ${e.code}`)); };
        ws.onmessage = (e) => emit(typeof e.data === 'string'
          ? { conn, event: 'frame', text: e.data }
          : { conn, event: 'frame', binary: toBase64(new Uint8Array(e.data)) });
      }),
    'ws.send': ({ conn, text }) => { conns.get(conn).ws.send(text); return {}; },

    // The broker's own client, which the broker serves.

    'sluice.connect': async ({ conn, url }) => {
      const { connect } = await import(`${url}/sluice.js`);
      const client = connect(url);
      conns.set(conn, { client, close: () => client.close(), drop: () => client.close({ timeout: 0 }) });
      await Promise.race([client.ready, new Promise((_, fail) => setTimeout(fail, 60_000, new Error('no connection')))]);
      return {};
    },
    'sluice.subscribe': async ({ conn, filter }) => {
      const encoder = new TextEncoder();
      await conns.get(conn).client.sub(filter, (m) => emit({
        conn, event: 'message', topic: m.topic, offset: String(m.offset),
        payload: toBase64(typeof m.data == 'string' ? encoder.encode(m.data) : m.data),
      })).ready;
      return {};
    },
    'sluice.publish': async ({ conn, topic, payload }) => ({ offset: await conns.get(conn).client.pub(topic, toBytes(payload)) }),

    // What a page has beside them.

    'sse.open': ({ conn, url }) => {
      const source = new EventSource(url);
      conns.set(conn, { close: () => source.close(), drop: () => source.close() });
      const forward = (e) => emit({ conn, event: 'sse', type: e.type, data: e.data, id: e.lastEventId });
      source.onmessage = forward;
      for (const type of ['gap', 'error-event', 'caught-up']) source.addEventListener(type, forward);
      source.onerror = () => emit({ conn, event: source.readyState === 2 ? 'closed' : 'reconnecting' });
      return new Promise((resolve, reject) => {
        source.addEventListener('open', () => { emit({ conn, event: 'open' }); resolve({}); });
        source.addEventListener('error', () => { if (source.readyState === 2) reject(new Error('the event stream was refused')); });
      });
    },
    fetch: async ({ url, method, headers, body }) => {
      const res = await fetch(url, { method, headers: Object.fromEntries(headers ?? []), body: body === undefined ? undefined : toBytes(body) });
      return { status: res.status, headers: [...res.headers], body: toBase64(new Uint8Array(await res.arrayBuffer())) };
    },
    // Reads a body as it comes, until a text stands in it.
    'fetch.stream': async ({ url, until }) => {
      const stop = new AbortController();
      const res = await fetch(url, { signal: stop.signal });
      const reader = res.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = '';
      while (!text.includes(until)) {
        const { value, done } = await reader.read();
        if (done) break;
        text += value;
      }
      reader.cancel().catch(() => {});
      stop.abort();
      return { status: res.status, text };
    },

    close: async ({ conn }) => { const c = conns.get(conn); conns.delete(conn); await c?.close(); return {}; },
    drop: ({ conn }) => { const c = conns.get(conn); conns.delete(conn); c?.drop(); return {}; },
  };

  // receipted runs a STOMP request with a receipt and waits for it, or for the
  // connection's end.
  function receipted(conn, send) {
    return new Promise((resolve, reject) => {
      const { client } = conns.get(conn);
      const receipt = `r-${++receipts}`;
      const onError = client.onStompError;
      const onClose = client.onWebSocketClose;
      client.onStompError = (f) => { onError(f); reject(new Error(`ERROR ${f.headers.message}`)); };
      client.onWebSocketClose = (e) => { onClose(e); reject(new Error('closed before the receipt')); };
      client.watchForReceipt(receipt, () => resolve({}));
      try { send(receipt); } catch (e) { reject(e); }
    });
  }

  // behind waits for the receipt of a message that nobody receives.
  function behind(conn) {
    return receipted(conn, (receipt) => conns.get(conn).client.publish({ destination: '/topic/nobody', body: '', headers: { receipt } }));
  }

  return async (request) => {
    const op = ops[request.op];
    if (!op) throw new Error(`no operation ${request.op}`);
    return op(request);
  };
}

// MQTT.js takes a Buffer where it has one, which in a page it brings itself.
function nodeBuffer(bytes) { return globalThis.Buffer ? globalThis.Buffer.from(bytes) : bytes; }

// STOMP.js takes headers as an object: one that repeats cannot be said.
function firstOfEach(pairs) {
  const headers = {};
  for (const [k, v] of pairs) headers[k] ??= v;
  return headers;
}

// MQTT.js takes a list of values for a name that repeats.
function gather(pairs) {
  const all = {};
  for (const [k, v] of pairs) all[k] = k in all ? [all[k], v].flat() : v;
  return all;
}
