// The pages of docs/examples in Chromium: node examples.mjs ORIGIN BROKER, where
// ORIGIN serves that folder. It fails by what it prints.

import assert from 'node:assert/strict'
import { createInterface } from 'node:readline'
import { launch } from './chromium.mjs'

const [, , origin, broker] = process.argv
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const ask = async (what) => { process.stdout.write(what + '\n'); await answers.next() }
const { page: ann, context, close } = await launch()
process.on('unhandledRejection', async (e) => { process.stderr.write(`${e.stack ?? e}\n`); await close(); process.exit(1) })
const bob = await context.newPage(), plot = await context.newPage()
for (const p of [ann, bob, plot]) p.on('pageerror', (err) => process.stderr.write(`page: ${err.stack ?? err}\n`))

const said = (page) => page.$$eval('li:not(.unsent)', (all) => all.map((li) => `${li.querySelector('b').textContent}: ${li.lastChild.textContent}`))
const until = async (page, ok, what) => {
  for (const end = Date.now() + 20_000; !(await ok());) {
    if (Date.now() > end) assert.fail(`not in time: ${what}; there is ${await page.textContent('body')}`)
    await page.waitForTimeout(20)
  }
}
async function say(page, name, text) {
  await page.fill('[name=name]', name)
  await page.fill('[name=text]', text)
  await page.keyboard.press('Enter')
}
const both = async (lines) => { for (const p of [ann, bob]) await until(p, async () => String(await said(p)) == String(lines), lines) }

const chat = `${origin}/chat.html?room=test&broker=${encodeURIComponent(broker)}`
await ann.goto(chat)
await bob.goto(chat)
await say(ann, 'ann', 'hello <b>bob</b>')
await both(['ann: hello <b>bob</b>'])
await say(bob, 'bob', 'hello ann')
await both(['ann: hello <b>bob</b>', 'bob: hello ann'])

// What is said while the broker is away is said when it is back.
await ask('stop')
await bob.waitForFunction(() => document.querySelector('#state').textContent)
await say(bob, 'bob', 'are you there?')
assert.equal(await bob.isVisible('li.unsent'), true)
await ask('start')
await both(['ann: hello <b>bob</b>', 'bob: hello ann', 'bob: are you there?'])
// Who comes again sees what was said.
await ann.reload()
await both(['ann: hello <b>bob</b>', 'bob: hello ann', 'bob: are you there?'])

await plot.goto(`${origin}/sensors.html?broker=${encodeURIComponent(broker)}`)
await ask('measure')
await until(plot, async () => /oven 190\.5 °C/.test(await plot.textContent('ul')) && /fridge 4\.2 °C/.test(await plot.textContent('ul')), 'what was measured')
await until(plot, async () => (await plot.$$eval('polyline', (all) => all.map((l) => l.points.length))).join() == '3,1', 'the lines')
await plot.click('button')
await until(plot, async () => (await plot.$$('polyline')).length == 5, 'its own readings')
await close()
process.stdout.write('done\n')
process.exit(0)
