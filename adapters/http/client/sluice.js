// Sluice's client for browsers and Node: the protocol sluice.v1.json over a
// WebSocket that is opened again whenever it is lost. README.md and sluice.d.ts
// beside this file describe what it offers. Names that begin with an underscore
// are between the classes here.
//
// SPDX-License-Identifier: Apache-2.0

/** Why something was refused or did not happen: the broker's codes, and lost, buffer_full, closed, gap. */
export class SluiceError extends Error {
  constructor(code, text, more) {
    super(text)
    Object.assign(this, more, { name: 'SluiceError', code })
  }
}

export const connect = (url, options) => new Client(url, options)

const lost = () => new SluiceError('lost', 'the connection was lost before the answer came', { retry: true })

// Close codes after which coming again would end likewise.
const forGood = [1002, 1003, 1007, 1009, 4400, 4409]

// A publish whose answer was lost is sent again for so long: well within the
// time for which the broker remembers its id.
const sameId = 300_000

// When a page should see to its connection at once.
const wakes = [[globalThis.window, 'online'], [globalThis.document, 'resume'], [globalThis.window, 'pageshow']]

const encode = (bytes) => {
  let s = ''
  for (let i = 0; i < bytes.length; i += 8192) s += String.fromCharCode(...bytes.subarray(i, i + 8192))
  return btoa(s)
}
const decode = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0))

const bytesOf = (v) =>
  v instanceof ArrayBuffer ? new Uint8Array(v) : ArrayBuffer.isView(v) ? new Uint8Array(v.buffer, v.byteOffset, v.byteLength) : null

// The members of a command that publishes.
function command(op, to, data, { headers: h, replyTo: reply, correlationId: corr, priority: prio, ...rest } = {}) {
  const c = { op, ...rest, ...(typeof to == 'string' ? { topic: to } : to), h, reply, prio }
  const bytes = bytesOf(data)
  c[bytes ? 'b' : 'd'] = bytes ? encode(bytes) : data
  const id = bytesOf(corr)
  c[id ? 'corr64' : 'corr'] = id ? encode(id) : corr
  return c
}

/** A message that came. */
export class Message {
  constructor(client, sub, m) {
    Object.assign(this, {
      offset: m.o, time: m.ts, topic: m.t, attempt: m.n ?? 1, retained: !!m.retained, key: m.key, id: m.id,
      headers: m.h ?? {}, replyTo: m.reply, correlationId: m.corr64 ? decode(m.corr64) : m.corr, ttl: m.ttl,
      priority: m.prio, type: m.type, publisher: m.pub ?? {}, data: 'b' in m ? decode(m.b) : m.d,
    })
    Object.defineProperties(this, { _client: { value: client }, _sub: { value: sub }, _era: { value: client._era }, _settled: { value: !!m.settled, writable: true } })
  }

  ack() { return this._settle({ op: 'ack' }) }
  nack(options) { return this._settle({ op: 'nack', ...options }) }
  extend(by) { return this._settle({ op: 'extend', by }, this._settled) }

  /** Answers the message where it asks for it. */
  reply(data, options) {
    if (!this.replyTo) return Promise.reject(new SluiceError('invalid', 'the message asks for no reply'))
    return this._client.pub(this.replyTo, data, { correlationId: this.correlationId, durable: false, ...options })
  }

  _settle(cmd, settled = true) {
    this._settled = settled
    const done = this._era == this._client._era ? this._client._call({ ...cmd, sub: this._sub, o: this.offset }).then(() => {}) : Promise.reject(lost())
    done.catch(() => {}) // who does not wait for it sees the message again
    return done
  }
}

/** A subscription: an async iterable of messages. */
export class Subscription {
  _items = [] // what came and was not taken: messages, and notices as functions
  _takers = []
  _seen = new Set() // offsets of retained values
  _owed = 0 // messages taken whose credit was not given back
  _tries = 0

  constructor(client, name, source, { from, retained, credit, ack, onGap, onCaughtUp, ...rest }) {
    this._client = client
    this._name = name
    this._source = source
    this._queued = 'queue' in source || 'group' in source
    this._held = this._queued && ack !== false
    this._from = from
    this._next = typeof from == 'number' ? from : undefined // the offset to go on from
    this._retained = retained
    this._credit = credit
    this._rest = rest
    this._onGap = onGap
    this._onCaughtUp = onCaughtUp
    this.ready = new Promise((yes, no) => { this._yes = yes; this._no = no })
    this.ready.catch(() => {})
  }

  /** Where to go on after the last message that was taken. */
  get position() { return this._items.find((m) => m.offset != null && !m.retained)?.offset ?? this._next }

  [Symbol.asyncIterator]() { return this }

  async next() {
    for (;;) {
      while (this._items.length) {
        const m = this._items.shift()
        if (typeof m == 'function') { m(); continue }
        if (!this._held) this._give()
        return { value: m, done: false }
      }
      if (this._ended) {
        const err = this._error
        this._error = null
        if (err) throw err
        return { value: undefined, done: true }
      }
      await new Promise((wake) => this._takers.push(wake))
    }
  }

  async return() {
    await this.close()
    return { value: undefined, done: true }
  }

  /** Ends it. What was not taken is dropped, what was held goes back. */
  async close() {
    if (this._ended) return
    this._end()
    await this._client._call({ op: 'unsub', sub: this._name }).catch(() => {})
  }

  async _run(fn) {
    const report = (err) => this._client._report(err)
    try {
      for (let m; !(m = await this.next()).done;) {
        m = m.value
        let settle = () => m.ack()
        try {
          await fn(m)
        } catch (err) {
          report(err)
          settle = () => m.nack({ reason: String(err?.message ?? err).slice(0, 256) })
        }
        if (this._held && !m._settled) await settle().catch(report)
      }
    } catch (err) {
      report(err)
    }
  }

  // Begins, or goes on, on the connection that there is now.
  async _open() {
    const client = this._client, era = client._era
    const most = Math.min(this._credit ?? (this._held ? client.limits.credit : 256), client.limits.max_credit)
    this._live = false
    const cmd = { op: 'sub', sub: this._name, ...this._source, ...this._rest, ack: this._held }
    try {
      if (!this._queued) {
        cmd.gap = true
        cmd.retained = this._retained
      }
      cmd.from = this._next ?? this._from
      this._live = true
      this._window = most
      this._owed = 0
      cmd.credit = Math.max(most - this._items.filter((m) => m.offset != null).length, 0)
      const { o } = await client._call(cmd)
      this._next ??= o // nothing before it comes
      this._tries = 0
      this._yes()
    } catch (err) {
      if (client._era != era || this._ended) return // it is opened again, or not wanted
      this._live = false
      if (err.retry) client._later(() => client._era == era && !this._ended && this._open(), this._tries++)
      else this._end(err)
    }
  }

  _take(m) {
    switch (m.op) {
      case 'msg':
        if (!this._queued) {
          if (this._seen.has(m.o) || !m.retained && m.o < this._next) return this._give()
          if (m.retained) this._seen.add(m.o)
          else this._next = m.o + 1
        }
        this._items.push(new Message(this._client, this._name, m))
        break
      case 'gap': {
        const gap = { from: m.from, to: m.to }
        this._next = Math.max(this._next ?? 0, m.to)
        this._items.push(() => this._tell(this._onGap ?? (() => { throw new SluiceError('gap', `messages from offset ${m.from} up to ${m.to} are missing`, gap) }), gap))
        break
      }
      case 'caught_up':
        if (!this._queued) {
          this._retained = undefined
          this._next = Math.max(this._next ?? 0, m.o)
          for (const o of this._seen) if (o < this._next) this._seen.delete(o)
        }
        if (this._onCaughtUp) this._items.push(() => this._tell(this._onCaughtUp))
        break
      case 'ended':
        return this._end(new SluiceError(m.code, m.text))
    }
    this._wake()
  }

  async _tell(fn, about) {
    try { await fn(about) } catch (err) { this._client._report(err) }
  }

  // Gives the credit of a message back.
  _give() {
    if (!this._live || ++this._owed * 2 < this._window) return
    this._client._post({ op: 'credit', sub: this._name, n: this._owed })
    this._owed = 0
  }

  _end(err) {
    if (this._ended) return
    this._ended = true
    this._error = err
    if (this._held || !err) this._items = []
    this._client._subs.delete(this._name)
    this._no(err ?? new SluiceError('closed', 'the subscription was closed'))
    this._wake()
  }

  _wake() { for (const wake of this._takers.splice(0)) wake() }
}

/** A connection that comes again. */
export class Client {
  state = 'connecting'
  limits = {}
  _era = 0 // counts connections, and their ends
  _subs = new Map()
  #calls = new Map() // what waits for an answer that only this connection can give
  #sent = new Map() // publishes without an answer yet
  #waiting = [] // publishes that were not sent yet
  #bytes = 0 // of them
  #requests = new Set() // that wait for a connection
  #number = 0 // of the last command; 0 is hello
  #tries = 0
  #name = Array.from(crypto.getRandomValues(new Uint8Array(9)), (b) => b.toString(36).padStart(2, '0')).join('')

  constructor(url, options = {}) {
    this.options = { buffer: 1000, bufferBytes: 16 << 20, backoff: {}, heartbeat: 15_000, dedup: true, WebSocket: globalThis.WebSocket, ...options }
    if (!this.options.WebSocket) throw new TypeError('there is no WebSocket here: pass one, as in connect(url, {WebSocket})')
    const u = new URL(url ?? new URL('/ws', import.meta.url), globalThis.location?.href ?? import.meta.url)
    u.protocol = u.protocol.replace(/^http/, 'ws')
    if (u.pathname == '/') u.pathname = '/ws'
    this.url = u.href
    this.ready = new Promise((yes, no) => { this._yes = yes; this._no = no })
    this.ready.catch(() => {})
    this._online = () => this.state == 'waiting' ? this.#connect() : this.#probe?.()
    for (const [on, what] of wakes) on?.addEventListener(what, this._online)
    this.#connect()
  }

  /** Publishes; the promise is of the offset, once the message is durable. */
  async pub(to, data, options) {
    if (this.#closing) throw this.#closed()
    const cmd = { ...command('pub', to, data, options), req: ++this.#number }
    if (this.options.dedup && cmd.durable !== false) cmd.id ??= `${this.#name}-${cmd.req}`
    const text = JSON.stringify(cmd)
    const p = { req: cmd.req, text, again: cmd.id != null }
    p.promise = new Promise((yes, no) => { p.yes = yes; p.no = no })
    this.#waiting.push(p)
    this.#bytes += text.length
    this.#flush()
    while (this.#waiting.length > this.options.buffer || this.#bytes > this.options.bufferBytes) {
      this.#shift().no(new SluiceError('buffer_full', 'too many messages wait for the connection, and this was the oldest', { retry: true }))
    }
    return p.promise
  }

  /** Subscribes to topics: with a function for each message, or to iterate over. */
  sub(filter, ...how) { return this.#subscribe(typeof filter == 'string' ? { topic: filter } : filter, ...how) }

  /** Takes messages off a queue, or shares a filter's with a group. */
  consume(queue, ...how) { return this.#subscribe(typeof queue == 'string' ? { queue } : queue, ...how) }

  #subscribe(source, fn, options = {}) {
    if (typeof fn != 'function') [fn, options] = [null, fn ?? {}]
    const { concurrency = 1, ...rest } = options
    const s = new Subscription(this, 's' + ++this.#number, source, rest)
    if (this.#closing) s._end(this.#closed())
    else this._subs.set(s._name, s)
    if (this.state == 'open') s._open()
    if (fn) for (let i = 0; i < concurrency; i++) s._run(fn)
    return s
  }

  /** Publishes a request; the promise is of the first reply. */
  async request(to, data, { timeout = 5000, ...options } = {}) {
    const began = Date.now()
    if (this.state != 'open') await this.#opened(timeout)
    const left = Math.max(timeout - (Date.now() - began), 1)
    const cmd = command('request', to, data, { ttl: left, ...options })
    return new Message(this, null, await this._call({ ...cmd, timeout: left }))
  }

  /** Answers requests with what the function returns, unless that is undefined. */
  respond(source, fn, options) {
    if (typeof source == 'string') source = { topic: source }
    return this.#subscribe(source, async (m) => {
      const answer = await fn(m)
      if (answer !== undefined && m.replyTo) await m.reply(answer)
    }, options)
  }

  /** Logs in anew, with another token if one is given: on this connection, or where it cannot be, on another. */
  async refresh(token) {
    if (this.#closing) return
    if (token !== undefined) this.options.token = token
    const era = this._era
    try {
      const { ttl } = await this._call({ op: 'auth', ...await this.#credentials() })
      this.#renewIn(ttl)
    } catch {
      if (this.#closing || era != this._era) return
      this.#lost()
      this.#connect()
    }
  }

  // What is shown to the broker now.
  async #credentials() {
    const { token, user, password } = this.options
    const [shown, pass] = await Promise.all([token, password].map((v) => typeof v == 'function' ? v() : v))
    return { token: shown ?? undefined, user, pass }
  }

  // Asks for another token before this one ends.
  #renewIn(ttl) {
    clearTimeout(this.#renewal)
    if (ttl && typeof this.options.token == 'function') this.#renewal = setTimeout(() => this.refresh(), Math.min(ttl * 0.8, 2 ** 31 - 1))
  }
  #renewal
  #resume // of the last welcome
  #probe // asks the broker for a sign

  /** Waits for what is not answered yet, says goodbye and ends everything. */
  async close({ timeout = 5000 } = {}) {
    if (this.#closing) return this.#closing
    let yes, timer
    this.#closing = new Promise((f) => { yes = f })
    const late = new Promise((f) => { timer = setTimeout(f, timeout) })
    for (const s of [...this._subs.values()]) s._end()
    await Promise.race([late, Promise.allSettled([...this.#sent.values(), ...this.#waiting].map((p) => p.promise))])
    this.#leaving = true
    await Promise.race([late, this._call({ op: 'bye' }).catch(() => {})])
    clearTimeout(timer)
    this.#finish()
    yes()
  }

  #closing // the promise that close returns
  #leaving // bye is said
  #ws
  #timer
  #beat

  #closed() { return this.#why ?? new SluiceError('closed', 'the client was closed') }
  #why

  _report(err) {
    if (this.options.onError) this.options.onError(err)
    else console.error(err)
  }

  #become(state, err) {
    this.state = state
    try { this.options.onState?.(state, err) } catch (e) { this._report(e) }
  }

  // Runs a function after a pause that grows with the tries and is never the
  // same for two clients.
  _later(fn, tries, least = 0) {
    const { min = 250, max = 30_000 } = this.options.backoff
    return setTimeout(fn, Math.max(least, Math.min(max, min * 2 ** Math.min(tries, 20)) * (0.5 + Math.random() / 2)))
  }

  async #connect() {
    clearTimeout(this.#timer)
    const era = ++this._era
    const { client, WebSocket, heartbeat } = this.options
    this.#become('connecting')
    try {
      const credentials = await this.#credentials()
      if (era != this._era) return
      const ws = this.#ws = new WebSocket(this.url, ['sluice.v1.json'])
      const here = (fn) => (e) => { if (era == this._era) fn(e) }
      let heard = true, asked = false, pause = heartbeat
      const beat = () => {
        if (heard) { asked = false; pause = heartbeat }
        else if (asked) return this.#lost(new SluiceError('lost', 'nothing was heard of the broker'), 0)
        else { asked = true; this._post({ op: 'ping' }) }
        heard = false
        this.#beat = setTimeout(beat, pause)
      }
      this.#beat = setTimeout(beat, pause)
      // A page that was suspended does not wait so long to learn what it has.
      this.#probe = () => {
        clearTimeout(this.#beat)
        heard = asked = false
        pause = Math.min(heartbeat, 3000)
        beat()
      }
      ws.onopen = here(() => ws.send(JSON.stringify({ op: 'hello', req: 0, ...credentials, client, resume: this.#resume })))
      ws.onmessage = here((e) => { heard = true; this.#take(JSON.parse(e.data)) })
      ws.onerror = () => {} // its close follows
      ws.onclose = here((e) => this.#lost(new SluiceError('lost', `the connection was closed: ${e.code} ${e.reason}`), e.code))
    } catch (err) {
      if (era == this._era) { this._report(err); this.#lost(err, 0) }
    }
  }

  #take(m) {
    if (m.sub != null && m.req == null) return this._subs.get(m.sub)?._take(m)
    const err = m.op == 'err' && new SluiceError(m.code, m.text, { retry: !!m.retry, earliest: m.earliest, end: m.end })
    if (m.req === 0) {
      if (err) this.#refused = err
      else this.#welcome(m)
      return
    }
    const call = this.#calls.get(m.req), p = this.#sent.get(m.req)
    if (call) {
      this.#calls.delete(m.req)
      err ? call.no(err) : call.yes(m)
    } else if (p && !(err && m.code == 'closing' && p.again)) {
      this.#sent.delete(m.req)
      err ? p.no(err) : p.yes(m.o)
      this.#flush()
    } else if (err && m.req == null && m.code != 'not_found') this._report(err) // not: credit for what has ended
  }
  #refused // why hello was

  #welcome(m) {
    this.limits = m.limits
    this.user = m.user
    this.#refused = null
    this.#tired = false
    this.#resume = m.resume
    this.#renewIn(m.ttl)
    this.#since = Date.now()
    this.#become('open')
    this._yes(this)
    for (const s of [...this._subs.values()]) s._open()
    for (const [req, p] of this.#sent) {
      if (Date.now() - p.at < sameId) { this.#ws.send(p.text); continue }
      this.#sent.delete(req)
      p.no(lost())
    }
    this.#flush()
    for (const r of this.#requests) r()
  }
  #since

  // Ends the connection, and has it come again if that makes sense.
  #lost(err, code) {
    const ws = this.#ws, was = this.state
    this.#ws = null
    clearTimeout(this.#beat)
    clearTimeout(this.#timer)
    clearTimeout(this.#renewal)
    this.#probe = null
    this._era++
    try { ws?.close() } catch {} // it may not have been open
    for (const s of this._subs.values()) if (s._held) s._items = [] // they come again
    for (const c of this.#calls.values()) c.no(lost())
    this.#calls.clear()
    for (const [req, p] of this.#sent) if (!p.again) { this.#sent.delete(req); p.no(lost()) }
    if (code == null) return
    if (this.#leaving) return this.#finish()
    if (was == 'open' && Date.now() - this.#since > 5000) this.#tries = 0
    // A token may have grown old: once more with a new one.
    const tired = code == 4401 && (this.#tired || ![this.options.token, this.options.password].some((v) => typeof v == 'function'))
    this.#tired = code == 4401
    if (tired || forGood.includes(code)) return this.#finish(this.#refused ?? err)
    this.#timer = this._later(() => this.#connect(), this.#tries++, code == 4429 ? 60_000 : 0)
    this.#become('waiting', this.#refused ?? err)
  }
  #tired

  #finish(why) {
    if (this.state == 'closed') return
    this.#why = why
    this.#closing ??= Promise.resolve()
    this.#lost()
    for (const [on, what] of wakes) on?.removeEventListener(what, this._online)
    const err = this.#closed()
    this.#become('closed', why)
    this._no(err)
    for (const s of [...this._subs.values()]) s._end(why)
    for (const p of [...this.#sent.values(), ...this.#waiting]) p.no(err)
    this.#sent.clear()
    this.#waiting = []
    for (const r of this.#requests) r(err)
  }

  // Waits for a connection.
  #opened(within) {
    return new Promise((yes, no) => {
      if (this.#closing) return no(this.#closed())
      if (this.#requests.size >= this.options.buffer) return no(new SluiceError('buffer_full', 'too many requests wait for the connection', { retry: true }))
      const end = (err) => { clearTimeout(timer); this.#requests.delete(end); err ? no(err) : yes() }
      const timer = setTimeout(() => end(new SluiceError('timeout', 'there is no connection', { retry: true })), within)
      this.#requests.add(end)
    })
  }

  #shift() {
    const p = this.#waiting.shift()
    this.#bytes -= p.text.length
    return p
  }

  // Sends publishes while the broker takes more and the socket keeps up.
  #flush() {
    while (this.state == 'open' && this.#waiting.length && this.#sent.size < this.limits.publishes && (!this.#sent.size || !(this.#ws.bufferedAmount > 1 << 20))) {
      const p = this.#shift()
      if (this.#tooLong(p.text)) { p.no(this.#tooLarge()); continue }
      this.#sent.set(p.req, p)
      p.at = Date.now()
      this.#ws.send(p.text)
    }
  }

  #tooLong(text) {
    return text.length * 3 > this.limits.message && new TextEncoder().encode(text).length > this.limits.message
  }
  #tooLarge() { return new SluiceError('too_large', `a message may have ${this.limits.payload} bytes`) }

  _post(cmd) { if (this.state == 'open') this.#ws.send(JSON.stringify(cmd)) }

  // Sends a command whose answer dies with the connection.
  _call(cmd) {
    return new Promise((yes, no) => {
      if (this.state != 'open') return no(this.#why ?? lost())
      const req = ++this.#number, text = JSON.stringify({ ...cmd, req })
      if (this.#tooLong(text)) return no(this.#tooLarge())
      this.#calls.set(req, { yes, no })
      this.#ws.send(text)
    })
  }
}
