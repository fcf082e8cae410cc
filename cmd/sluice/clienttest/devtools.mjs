// Chromium by its own protocol, without a library in between: Playwright keeps
// every page visible, and a page that is visible cannot be suspended.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { WebSocket } from 'ws'

// Opens a page at an address. send speaks to it; on is called with its events.
export async function openPage(address, on) {
  const profile = await mkdtemp(join(tmpdir(), 'sluice-chromium-'))
  const browser = spawn(process.env.CHROMIUM ?? '/usr/bin/chromium', ['--headless', '--no-sandbox', '--disable-gpu',
    '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
    '--remote-debugging-port=0', `--user-data-dir=${profile}`, 'about:blank'], { stdio: ['ignore', 'ignore', 'pipe'] })
  const ended = once(browser, 'exit')
  const close = async () => {
    browser.kill('SIGTERM')
    await ended
    await rm(profile, { recursive: true, force: true, maxRetries: 10 })
  }
  process.on('SIGTERM', async () => { await close(); process.exit(1) })
  const said = createInterface({ input: browser.stderr })
  const where = new Promise((yes) => said.on('line', (line) => { const at = /ws:\/\/\S+/.exec(line); if (at) yes(at[0]) }))
  const socket = new WebSocket(await where)
  await once(socket, 'open')
  let last = 0
  const calls = new Map()
  socket.on('message', (text) => {
    const m = JSON.parse(text)
    if (!m.id) return on(m.method, m.params)
    const { yes, no } = calls.get(m.id)
    calls.delete(m.id)
    m.error ? no(new Error(m.error.message)) : yes(m.result)
  })
  const call = (method, params, sessionId) => new Promise((yes, no) => {
    calls.set(++last, { yes, no })
    socket.send(JSON.stringify({ id: last, method, params, sessionId }))
  })
  const { targetInfos } = await call('Target.getTargets')
  const { targetId } = targetInfos.find((t) => t.type == 'page')
  const { sessionId } = await call('Target.attachToTarget', { targetId, flatten: true })
  const send = (method, params) => call(method, params, sessionId)
  await send('Page.enable')
  await send('Runtime.enable')
  const { frameId, errorText } = await send('Page.navigate', { url: address })
  if (errorText) throw new Error(`${address}: ${errorText}`)
  return { send, close, frameId }
}
