// The page of docs/javascript.md in Chromium: node jsclient_page.mjs ORIGIN,
// with the page on standard input up to a line that is only a dot. What it
// prints to its console is printed here; it ends with the input.

import { createInterface } from 'node:readline'
import { launch } from './chromium.mjs'

const lines = createInterface({ input: process.stdin })
let html = '<!doctype html><meta charset="utf-8"><title>page</title>'
for await (const line of lines) {
  if (line == '.') break
  html += line + '\n'
}
const { page, close } = await launch()
page.on('console', (m) => { (m.type() == 'log' ? process.stdout : process.stderr).write(m.text() + '\n') })
page.on('pageerror', (err) => process.stdout.write(`page error: ${err.stack ?? err}\n`))
// The broker's own text gives way to the page, so that the page is from the
// broker in the eyes of Chromium, which a page of this process would not be.
await page.goto(process.argv[2] + '/')
await page.setContent(html)
process.stdin.on('end', async () => {
  await close()
  process.exit(0)
})
process.stdin.resume()
