// One scenario of sluice.js in a page in Chromium: node jsclient_chromium.mjs NAME
// URL DIRECT, as jsclient.mjs is for Node. The page is the broker's own.

import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { openPage } from './devtools.mjs'

const [, , name, url, direct] = process.argv
const answers = createInterface({ input: process.stdin })
async function tell(what) {
  process.stdout.write(what + '\n')
  await once(answers, 'line')
}

// While the page is suspended, messages are published and its connection ends
// in one way or another.
async function suspend(end, first, count) {
  await send('Page.setWebLifecycleState', { state: 'frozen' })
  if (end != 'nothing') await tell(end)
  await tell(`publish ${first} ${count}`)
  await send('Page.setWebLifecycleState', { state: 'active' })
  if (end == 'hold') { await tell('shut'); await tell('open') }
}

// The scenario, as the page runs it; ask is answered by answered.
async function run(name, url, direct, source) {
  const waiting = []
  window.answered = () => waiting.shift()()
  const ask = (what) => new Promise((yes) => { waiting.push(yes); window.ask(what) })
  const { makeScenarios } = await import(URL.createObjectURL(new Blob([source], { type: 'text/javascript' })))
  const { connect, SluiceError } = await import('/sluice.js')
  const fail = (text) => { throw new Error(text) }
  const same = (a, b, why) => JSON.stringify(a) == JSON.stringify(b) || fail(`${why ?? ''}: ${JSON.stringify(a)} instead of ${JSON.stringify(b)}`)
  const assert = {
    fail, equal: same, deepEqual: same,
    ok: (v, why) => v || fail(why ?? 'not so'),
    rejects: (p, check) => p.then(() => fail('it did not fail'), (e) => check(e) || fail(`it failed by ${e}`)),
    throws: (f) => { try { f() } catch { return } fail('it did not throw') },
  }
  const sleep = (ms) => new Promise((yes) => setTimeout(yes, ms))
  await makeScenarios({ connect, SluiceError, WebSocket, assert, ask, sleep, url, direct, brief: true })(name)
}

let loaded
const load = new Promise((yes) => { loaded = yes })
const { send, close } = await openPage(url.replace(/^ws/, 'http') + '/healthz', async (method, params) => {
  if (method == 'Page.loadEventFired') return loaded()
  if (method == 'Runtime.exceptionThrown') process.stderr.write(`page: ${JSON.stringify(params.exceptionDetails)}\n`)
  if (method != 'Runtime.bindingCalled') return
  const [word, ...args] = params.payload.split(' ')
  await (word == 'suspend' ? suspend(...args) : tell(params.payload))
  await send('Runtime.evaluate', { expression: 'answered()' })
})
await load
await send('Runtime.addBinding', { name: 'ask' })
const source = await readFile(new URL('jsclient_scenarios.mjs', import.meta.url), 'utf8')
const { exceptionDetails: bad } = await send('Runtime.evaluate', {
  expression: `(${run})(${[name, url, direct, source].map((v) => JSON.stringify(v))})`, awaitPromise: true,
})
if (bad) process.stderr.write(`${bad.exception?.description ?? bad.text}\n`)
await close()
answers.close()
if (!bad) process.stdout.write('done\n')
process.exit(bad ? 1 : 0)
