// The page /try in Chromium, by keyboard alone where a person would: node try.mjs
// URL [FOLDER FOR SCREENSHOTS]. It fails by what it prints.

import assert from 'node:assert/strict'
import { createInterface } from 'node:readline'
import { launch } from './chromium.mjs'

const [, , url, pictures] = process.argv
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const ask = async (what) => { process.stdout.write(what + '\n'); await answers.next() }

const { page, context, close } = await launch({ viewport: { width: 1320, height: 900 } })
process.on('unhandledRejection', async (e) => { process.stderr.write(`${e.stack ?? e}\n`); await close(); process.exit(1) })
// While the broker is away Chromium itself says that nobody answers.
let away = false
page.on('console', (m) => {
  if (m.type() == 'error' && !(away && m.text().includes('net::ERR_'))) process.stderr.write(m.text() + '\n')
})
page.on('pageerror', (err) => process.stderr.write(`page: ${err.stack ?? err}\n`))
await context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin: url })

const rows = () => page.$$eval('#messages summary', (all) => all.map((s) => [...s.children].map((e) => e.textContent)))
const until = async (ok, what) => {
  for (const end = Date.now() + 20_000; !(await ok());) {
    if (Date.now() > end) assert.fail(`not in time: ${what}; there is ${JSON.stringify(await rows())}`)
    await page.waitForTimeout(20)
  }
}
const focused = () => page.evaluate(() => document.activeElement.name || document.activeElement.id || document.activeElement.textContent)

await page.goto(`${url}/try`)
await page.waitForSelector('#state.open')

// From the beginning of the page to a publish, by keyboard.
await until(() => page.isVisible('#lines li'), 'the lines')
for (let n = 0; await focused() != 'topic'; n++) {
  assert.ok(n < 5, 'Tab does not lead to the topic')
  await page.keyboard.press('Tab')
}
await page.keyboard.press('Control+A')
await page.keyboard.type('plant/3/temp')
await page.keyboard.press('Tab')
await page.keyboard.press('Control+A')
await page.keyboard.type('{"celsius":21.5}')
await page.keyboard.press('Control+Enter')
await until(async () => /offset \d+/.test(await page.textContent('#published')), 'confirmed')
await until(async () => (await rows()).length == 1, 'the message')
const [[, topic, data, via]] = await rows()
assert.deepEqual([topic, data, via], ['plant/3/temp', '{"celsius":21.5}', 'ws'])

// What comes from elsewhere; all of it opens by Enter.
await ask('publish')
await until(async () => (await rows()).length == 4, 'the others')
assert.deepEqual((await rows()).map((r) => r.slice(1)).sort(), [
  ['from/http', '<b onclick="x">bold</b> & more', 'http'], ['from/mqtt', '00 ff 41', 'mqtt'], ['from/stomp', 'hello', 'stomp'],
  ['plant/3/temp', '{"celsius":21.5}', 'ws']])
await page.focus('#messages li:last-child summary')
await page.keyboard.press('Enter')
await until(async () => /"celsius": 21.5/.test(await page.textContent('#messages li:last-child pre')), 'its whole')
assert.match(await page.textContent('#messages li:last-child dl'), /typeapplication\/json/)
if (pictures) for (const scheme of ['light', 'dark']) {
  await page.emulateMedia({ colorScheme: scheme })
  await page.screenshot({ path: `${pictures}/${scheme}.png` })
}

// Dark and light, and both with enough contrast.
const looks = []
for (const scheme of ['light', 'dark']) {
  await page.emulateMedia({ colorScheme: scheme })
  looks.push(await page.evaluate(() => {
    const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4
    const luminance = (c) => { const [r, g, b] = c.match(/[\d.]+/g).map(Number); return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b) }
    const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (!/, 0\)$/.test(c)) return c } }
    const poor = []
    for (const e of document.querySelectorAll('h1, h2, p, label, button, code, summary span, dt, dd, pre, kbd')) {
      if (!e.checkVisibility() || getComputedStyle(e).opacity < 1) continue
      const [a, b] = [luminance(getComputedStyle(e).color), luminance(ground(e))].sort((x, y) => y - x)
      if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(`${e.tagName} ${e.textContent.slice(0, 30)}`)
    }
    return { poor, ground: getComputedStyle(document.body).backgroundColor }
  }))
}
assert.deepEqual(looks.flatMap((l) => l.poor), [])
assert.notEqual(looks[0].ground, looks[1].ground)

// A filter, and replays.
await page.fill('[name=filter]', 'from/+')
await page.selectOption('[name=from]', 'earliest')
await until(async () => (await rows()).length == 3, 'what the filter matches')
await page.fill('[name=where]', "content_type = 'application/json'")
await page.fill('[name=filter]', '#')
await page.click('#watch button')
await until(async () => (await rows()).length == 1, 'what the selector holds for')
await page.fill('[name=where]', '')
await page.selectOption('[name=from]', '')
await page.waitForFunction(() => document.querySelectorAll('#messages summary').length == 0)
await page.click('#pause')
await page.focus('[name=data]')
await page.keyboard.press('Control+Enter')
await page.keyboard.press('Control+Enter')
await page.waitForTimeout(100)
assert.ok((await rows()).length <= 1, 'paused')
await page.click('#pause')
await until(async () => (await rows()).length == 2, 'what came meanwhile')
await page.selectOption('[name=from]', 'at')
await page.fill('[name=at]', '1000000')
await page.click('#watch button')
await until(async () => /outside|removed|1000000/.test(await page.textContent('#messages')), 'the refusal')

// A line is copied.
await page.click('#lines li:first-child button')
assert.equal(await page.evaluate(() => navigator.clipboard.readText()), `curl -N ${new URL(url).host}/sse/plant/3/temp`)
// It goes on over a restart.
await page.selectOption('[name=from]', '')
away = true
await ask('restart')
await page.waitForSelector('#state.open', { timeout: 60_000 })
away = false
await page.focus('[name=data]')
await page.keyboard.press('Control+Enter')
await until(async () => (await rows()).length == 1, 'a message after the restart')
await close()
process.stdout.write('done\n')
process.exit(0)
