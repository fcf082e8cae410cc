// The scenarios of sluice.js, for Node and for a page: what differs between them
// is handed in. What has to happen to the broker, a scenario asks for.

export function makeScenarios({ connect, SluiceError, WebSocket, assert, ask, sleep, url, direct, tokenFor, brief }) {
const clients = []
const errors = []
function open(options = {}) {
  const c = connect(options.url ?? url, { WebSocket, backoff: { min: 20, max: 200 }, onError: (e) => errors.push(e), ...options })
  clients.push(c)
  return c
}

// Polls, for what has no promise.
async function until(ok, what) {
  for (const end = Date.now() + 60_000; !ok();) {
    if (Date.now() > end) assert.fail(`not in time: ${what()}; errors: ${errors}`)
    await sleep(5)
  }
}
const numbers = (n, from = 0) => Array.from({ length: n }, (_, i) => i + from)
const refused = (code) => (e) => e instanceof SluiceError && e.code == code || assert.fail(`${e.code} instead of ${code}: ${e.message}`)

const scenarios = {
  async messages() {
    const c = open({ client: 'js' })
    await c.ready
    const sub = c.sub('m/#')
    await sub.ready
    const all = { headers: { a: '1' }, key: 'k', ttl: 60_000, priority: 7, replyTo: 'r/1', correlationId: 'c', type: 'text/x', id: 'mine' }
    const offset = await c.pub('m/1', 'text ✓', all)
    assert.equal(await c.pub('m/1', 'text ✓', all), offset, 'the same id')
    await c.pub('m/2', { celsius: 21.5, ids: [1, null] })
    await c.pub({ topic: 'm/3' }, Uint8Array.of(0, 255, 128), { correlationId: Uint8Array.of(255), headers: [['x', '1'], ['x', '2']] })
    await c.pub('m/4', new Uint8Array(100_000).fill(200))
    await c.pub('m/5')
    const got = []
    for await (const m of sub) if (got.push(m) == 5) break
    assert.deepEqual(got.map((m) => m.topic), ['m/1', 'm/2', 'm/3', 'm/4', 'm/5'])
    const first = got[0]
    assert.deepEqual([first.offset, first.data, first.headers, first.key, first.priority, first.replyTo, first.correlationId, first.type, first.id, first.publisher.client, first.attempt],
      [offset, 'text ✓', { a: '1' }, 'k', 7, 'r/1', 'c', 'text/x', 'mine', 'js', 1])
    assert.ok(first.ttl > 0 && first.ttl <= 60_000 && Math.abs(first.time - Date.now()) < 60_000)
    assert.deepEqual(got[1].data, { celsius: 21.5, ids: [1, null] })
    assert.deepEqual([...got[2].data, ...got[2].correlationId], [0, 255, 128, 255])
    assert.deepEqual(got[2].headers, [['x', '1'], ['x', '2']])
    assert.equal(got[3].data.length, 100_000)
    assert.equal(got[4].data, '')
    assert.deepEqual(await sub.next(), { value: undefined, done: true })

    const past = [], caught = []
    c.sub('m/+', (m) => { past.push(m.topic) }, { from: offset, onCaughtUp: () => caught.push(past.length) })
    await until(() => caught.length, () => past)
    assert.deepEqual([past.length, caught[0]], [5, 5])

    await c.pub('r/a', 'kept', { retain: true })
    const kept = await c.sub('r/#', { retained: true }).next()
    assert.deepEqual([kept.value.data, kept.value.retained], ['kept', true])

    const fit = c.sub('w/#', { where: "kind = 'b' AND priority > 3" })
    await fit.ready
    for (const [kind, priority] of [['a', 9], ['b', 1], ['b', 4]]) await c.pub('w/x', `${kind}${priority}`, { headers: { kind }, priority })
    assert.equal((await fit.next()).value.data, 'b4')
    await assert.rejects(c.sub('w/#', { where: 'a =' }).ready, refused('invalid'))
    await assert.rejects(c.pub('nobody', 'x', { mandatory: true }), refused('no_responders'))

    await assert.rejects(c.pub('bad/#', 'x'), refused('invalid_topic'))
    await assert.rejects(c.pub('m', 'x'.repeat(2_000_000)), refused('too_large'))
    await assert.rejects(c.pub('m', 'x'.repeat(5_000_000)), refused('too_large'))
    await assert.rejects(c.sub('#/bad').ready, refused('invalid_topic'))
    await assert.rejects(c.sub('m', { from: 1e12 }).next(), refused('removed'))
    assert.throws(() => connect(url, { WebSocket: null }), TypeError)
    assert.equal(c.state, 'open')
    assert.deepEqual(errors, [])
  },

  // The broker is stopped and killed under a publisher and its readers.
  async restarts() {
    const c = open(), live = [], iterated = []
    const quiet = c.sub('quiet/#') // sees nothing before the first restart
    c.sub('n/#', (m) => live.push(m.data.n))
    const sub = c.sub('n/#', { from: 'earliest', credit: 7 })
    const reading = (async () => { for await (const m of sub) iterated.push(m.data.n) })()
    await quiet.ready
    const published = []
    let sent = 0, going = true
    const publishing = (async () => {
      while (going) {
        const batch = numbers(20, sent)
        sent += 20
        published.push(...await Promise.all(batch.map((n) => c.pub('n/x', { n }))))
        await sleep(1)
      }
    })()
    for (const end of brief ? ['kill', 'cut'] : ['stop', 'kill', 'kill', 'cut', 'cut']) {
      const before = sent
      await until(() => sent > before + 200, () => sent)
      await ask(end)
      if (end != 'cut') { await sleep(50); await ask('start') }
    }
    const before = sent
    await until(() => sent > before + 100, () => sent)
    going = false
    await publishing
    assert.equal(new Set(published).size, sent, 'every publish has its own offset')
    await until(() => live.length >= sent && iterated.length >= sent, () => [live.length, iterated.length, sent])
    await sleep(200)
    assert.deepEqual(live, numbers(sent), 'live')
    assert.deepEqual(iterated, numbers(sent), 'iterated')
  },

  // A subscription that has seen nothing loses nothing that came while it was away.
  async away() {
    const c = open(), beside = open({ url: direct })
    const got = [], queued = []
    await c.sub('quiet/#', (m) => got.push(m.data)).ready
    await beside.ready
    await ask('shut')
    for (const n of numbers(500)) await beside.pub('quiet/a', n)
    assert.deepEqual(got, [])
    c.pub('quiet/b', 500).then((o) => queued.push(o))
    await ask('open')
    await until(() => got.length >= 501 && queued.length, () => got.length)
    await sleep(100)
    assert.deepEqual(got.map(Number), numbers(501))
  },

  // A wire that goes dead without a word is noticed.
  async silence() {
    const states = []
    const c = open({ heartbeat: 100, onState: (s) => states.push(s) })
    await c.sub('s', (m) => states.push(m.data)).ready
    await ask('hold')
    const p = c.pub('s', 'through')
    await until(() => states.includes('waiting'), () => states)
    await ask('open')
    await p
    await until(() => states.includes('through') && c.state == 'open', () => states)
    // An idle connection that answers is left alone, unless the machine itself
    // stands still for that long.
    let seen
    for (const end = Date.now() + 60_000; seen != states.length; await sleep(500)) {
      assert.ok(Date.now() < end, states.join())
      seen = states.length
      await sleep(500)
    }
    assert.equal(states.filter((s) => s == 'through').length, 1)
  },

  async queue() {
    const c = open(), done = [], again = []
    await Promise.all(numbers(300).map((n) => c.pub({ queue: 'jobs' }, { n })))
    const failed = new Set()
    const worker = open().consume('jobs', async (m) => {
      if (m.data.n % 50 == 7 && !failed.has(m.data.n)) { failed.add(m.data.n); throw new Error('once more') }
      if (m.attempt > 1) again.push(m.data.n)
      done.push(m.data.n)
      if (done.length == 100) await ask('cut')
    }, { credit: 8, concurrency: 4 })
    await until(() => new Set(done).size == 300, () => done.length)
    assert.equal(failed.size, 6)
    // Twice comes only what four calls had in hand when the connection was cut,
    // and not what waited to be taken.
    assert.ok(done.length <= 300 + 4, `${done.length} handled`)
    for (const n of failed) assert.ok(again.includes(n))
    await worker.close()

    await c.pub({ queue: 'by-hand' }, 'a')
    await c.pub({ queue: 'by-hand' }, 'b')
    const q = c.consume('by-hand')
    const { value: a } = await q.next()
    await a.extend(60_000)
    await a.nack({ delay: 0 })
    const rest = [(await q.next()).value, (await q.next()).value].sort((x, y) => x.data < y.data ? -1 : 1)
    assert.deepEqual(rest.map((m) => [m.data, m.attempt]), [['a', 2], ['b', 1]])
    await rest[0].ack()
    await assert.rejects(rest[0].ack(), refused('not_held'))
    await ask('cut')
    const b = (await q.next()).value // held by no one, so it comes again
    assert.equal(b.data, 'b')
    await assert.rejects(rest[1].ack(), refused('lost'))
    await b.ack()
    await q.close()
    assert.equal((await q.next()).done, true)

    const shares = [[], []]
    const members = shares.map((s) => c.consume({ topic: 'g/#', group: 'team' }, (m) => { s.push(m.data) }, { credit: 1 }))
    await Promise.all(members.map((m) => m.ready))
    await Promise.all(numbers(100).map((n) => c.pub('g/1', n)))
    await until(() => shares.flat().length >= 100, () => shares.flat().length)
    assert.deepEqual(shares.flat().map(Number).sort((x, y) => x - y), numbers(100))
    await assert.rejects(c.consume({ topic: 'g/#', group: 'team' }, { ordered: true }).next(), refused('conflict'))
    const inOrder = c.consume({ topic: 'o/#', group: 'inorder' }, { ordered: true, credit: 10 })
    await inOrder.ready
    for (const [data, key] of [['a1', 'a'], ['a2', 'a'], ['b1', 'b']]) await c.pub('o/1', data, { key })
    const a1 = (await inOrder.next()).value, b1 = (await inOrder.next()).value
    assert.deepEqual([a1.data, b1.data], ['a1', 'b1'])
    await a1.ack()
    assert.equal((await inOrder.next()).value.data, 'a2')
    const away = c.consume('gone')
    await away.ready
    await ask('delete gone')
    await assert.rejects(away.next(), refused('deleted'))
  },

  async requests() {
    const c = open(), service = open()
    service.respond('svc/double', async (m) => m.data.n * 2)
    await service.respond({ queue: 'svc-q' }, (m) => m.reply('by hand')).ready
    assert.equal(Number((await c.request('svc/double', { n: 21 }, { timeout: 60_000 })).data), 42)
    assert.equal((await c.request({ queue: 'svc-q' }, 'x', { timeout: 60_000 })).data, 'by hand')
    const many = await Promise.all(numbers(100).map((n) => c.request('svc/double', { n }, { timeout: 60_000 })))
    assert.deepEqual(many.map((m) => Number(m.data)), numbers(100).map((n) => n * 2))
    await assert.rejects(c.request('svc/nobody', 'x'), refused('no_responders'))
    await c.sub('svc/mute').ready
    await assert.rejects(c.request('svc/mute', 'x', { timeout: 100 }), refused('timeout'))
    await ask('shut')
    // The client may have noticed already, or not: then a request is lost with the connection.
    const over = (e) => ['timeout', 'lost'].includes(e.code)
    const early = c.request('svc/double', { n: 4 }, { timeout: 1000 })
    await assert.rejects(c.request('svc/double', { n: 1 }, { timeout: 50 }), over)
    await assert.rejects(early, over)
    await until(() => c.state != 'open', () => c.state)
    const later = c.request('svc/double', { n: 5 }, { timeout: 60_000, mandatory: false })
    await ask('open')
    assert.equal(Number((await later).data), 10)
  },

  // More is published without a connection than may wait.
  async buffer() {
    const c = open({ buffer: 10 }), got = []
    await c.sub('b', (m) => got.push(Number(m.data))).ready
    await ask('shut')
    await until(() => c.state == 'waiting', () => c.state)
    const all = numbers(25).map((n) => c.pub('b', n))
    const results = Promise.allSettled(all)
    for (const n of numbers(15)) await assert.rejects(all[n], refused('buffer_full'))
    await ask('open')
    const kept = (await results).slice(15)
    assert.ok(kept.every((r) => r.status == 'fulfilled' && r.value > 0), JSON.stringify(kept))
    await until(() => got.length == 10, () => got)
    assert.deepEqual(got, numbers(10, 15))

    const small = open({ url: 'ws://127.0.0.1:1', bufferBytes: 1000 })
    const oldest = small.pub('b', 'x'.repeat(600))
    const newest = small.pub('b', 'x'.repeat(600))
    await assert.rejects(oldest, refused('buffer_full'))
    await Promise.all([assert.rejects(newest, refused('closed')), small.close({ timeout: 50 })])
    await assert.rejects(small.pub('b', 'x'), refused('closed'))
    await assert.rejects(small.request('b', 'x'), refused('closed'))
    await assert.rejects(small.ready, refused('closed'))

    // What waits when close is called is published first.
    const brief = open()
    const last = brief.pub('b', 99)
    await brief.close()
    assert.ok(await last > 0)

    // Without ids, what was not answered is not sent again.
    const bare = open({ dedup: false })
    await bare.ready
    await ask('hold')
    const unsure = assert.rejects(bare.pub('b', 100), refused('lost'))
    await ask('shut')
    await unsure
    await ask('open')
  },

  // A reader that does not read is sent no more than its credit.
  async slow() {
    const c = open(), writer = open()
    const sub = c.sub('slow/#', { credit: 16 })
    await sub.ready
    for (let n = 0; n < 3000;) await Promise.all(numbers(100, n).map((k) => (n++, writer.pub('slow/x', { k, pad: 'x'.repeat(500) }))))
    await until(() => sub._items.length >= 16, () => sub._items.length)
    await sleep(200)
    assert.equal(sub._items.length, 16)
    await ask('cut')
    await until(() => c.state == 'open', () => c.state)
    await sleep(200)
    assert.equal(sub._items.length, 16)
    const at = sub.position
    const got = []
    for await (const m of sub) {
      if (!got.length) assert.equal(m.offset, at)
      if (got.push(m.data.k) == 3000) break
    }
    assert.deepEqual(got, numbers(3000))

    // A page that is loaded again goes on where it was.
    const first = c.sub('slow/#', { from: 'earliest' })
    for (let i = 0; i < 10; i++) await first.next()
    assert.equal((await c.sub('slow/#', { from: first.position }).next()).value.data.k, 10)
  },

  async logins() {
    let asked = 0
    const got = []
    const c = open({ user: 'ann', password: async () => ++asked == 2 ? 'stale' : 'ann-secret' })
    await c.ready
    assert.equal(c.user, 'ann')
    await c.sub('t', (m) => got.push(m.data)).ready
    await c.refresh() // meets the stale one, then asks again
    await c.pub('t', 'x')
    assert.equal(asked, 3)
    await until(() => got.length, () => asked)

    const wrong = open({ user: 'ann', password: 'wrong' })
    await assert.rejects(wrong.ready, refused('unauthenticated'))
    await assert.rejects(wrong.pub('t', 'x'), refused('unauthenticated'))
    await assert.rejects(wrong.sub('t').next(), refused('unauthenticated'))
    await assert.rejects(wrong.request('t', 'x'), refused('unauthenticated'))
    assert.equal(wrong.state, 'closed')

    // A function is asked once more before it is believed; each token is shown.
    const shown = []
    class Spy extends WebSocket {
      send(text) { shown.push(JSON.parse(text).token); super.send(text) }
    }
    const stale = open({ token: () => `old ${shown.length}`, WebSocket: Spy })
    await assert.rejects(stale.ready, refused('unauthenticated'))
    assert.deepEqual(shown, ['old 0', 'old 1'])
  },

  // Tokens end, and new ones are shown before, on the same connection.
  async tokens() {
    let asked = 0
    const states = [], got = []
    class Brief extends WebSocket { // what the broker says lasts for minutes
      set onmessage(f) { super.onmessage = (e) => f({ data: e.data.replace(/"ttl":\d+/, '"ttl":100') }) }
    }
    const c = open({ token: () => tokenFor('ann', 300, ++asked), WebSocket: Brief, onState: (s) => states.push(s) })
    await c.sub('t', (m) => got.push(m.data)).ready
    await until(() => asked >= 4, () => asked)
    await c.refresh()
    await c.pub('t', 'still here')
    await until(() => got.length, () => got)
    assert.deepEqual(states, ['connecting', 'open'])

    // One that the broker does not like is shown again on a connection of its own.
    asked = 0
    const d = open({ token: () => tokenFor(asked++ ? 'bob' : 'ann', 300) })
    await d.ready
    assert.equal(d.user, 'ann')
    await d.refresh()
    await until(() => d.user == 'bob' && d.state == 'open', () => d.user)
  },

  // A page that is suspended, and whose connection ends meanwhile, has missed
  // nothing when it wakes.
  async suspended() {
    const c = open({ heartbeat: 500 }), got = []
    const life = []
    for (const what of ['freeze', 'resume']) document.addEventListener(what, () => life.push(`${what} ${got.length}`))
    await c.sub('n/#', (m) => got.push(m.data.n)).ready
    await c.pub('n/x', { n: 0 })
    await until(() => got.length, () => got)
    let sent = 1
    for (const end of ['nothing', 'cut', 'hold']) {
      await ask(`suspend ${end} ${sent} 200`)
      sent += 200
      await until(() => got.length >= sent, () => [got.length, life])
    }
    assert.deepEqual(got, numbers(sent))
    assert.deepEqual(life, numbers(3).flatMap((n) => [`freeze ${1 + n * 200}`, `resume ${1 + n * 200}`]))
  },
}

return async (name) => {
  await scenarios[name]()
  await Promise.all(clients.map((c) => c.close({ timeout: 1000 })))
}
}
