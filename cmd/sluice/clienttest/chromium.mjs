// Chromium as the tests here start it, with a profile that is removed in the end.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { chromium } from 'playwright-core'

export async function launch(options = {}) {
  const profile = await mkdtemp(join(tmpdir(), 'sluice-chromium-'))
  const start = () => chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    timeout: 120_000,
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync'],
    ...options,
  })
  const context = await start().catch(start) // a busy machine may be too slow once
  let ending
  const close = () => ending ??= (async () => {
    await context.close().catch(() => {})
    await rm(profile, { recursive: true, force: true })
  })()
  context.setDefaultTimeout(120_000)
  return { context, close, page: context.pages()[0] ?? await context.newPage() }
}
