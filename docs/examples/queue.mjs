// A work queue: node queue.mjs work, and node queue.mjs add 20. The broker is
// 127.0.0.1:8080, or SLUICE=ws://host:port.

import { connect } from './sluice.mjs'

const WebSocket = globalThis.WebSocket ?? (await import('ws')).WebSocket // Node before 22
const sluice = connect(process.env.SLUICE ?? 'ws://127.0.0.1:8080', { WebSocket })
const [what, count = '10'] = process.argv.slice(2)

if (what == 'add') {
  await Promise.all(Array.from({ length: Number(count) }, (_, n) => sluice.pub({ queue: 'resize' }, { picture: `${n}.jpg`, width: 640 })))
  console.log(`${count} jobs are in the queue, on disk`)
  await sluice.close()
} else {
  // Up to four at a time. A job is done when its function is; when that throws,
  // it comes again, later each time; when it has failed five times it is set
  // aside, in the queue resize.dead.
  const jobs = sluice.consume('resize', async (m) => {
    try {
      await resize(m.data)
      console.log(`done ${m.data.picture}`)
    } catch (err) {
      if (m.attempt < 5) throw err
      console.log(`given up ${m.data.picture}`)
      await m.nack({ requeue: false, reason: err.message })
    }
  }, { concurrency: 4, credit: 8 })
  await jobs.ready
  console.log('waiting for jobs, Ctrl-C stops')
  process.on('SIGINT', async () => { // what is not done goes to another worker
    await sluice.close()
    process.exit(0)
  })
}

// It takes a moment, and fails at times.
async function resize({ picture }) {
  await new Promise((f) => setTimeout(f, 20 + Math.random() * 50))
  if (picture == '13.jpg' || Math.random() < 0.1) throw new Error(`${picture} is no picture`)
}
