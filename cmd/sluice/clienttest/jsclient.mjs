// One scenario of sluice.js in Node: node jsclient.mjs NAME URL DIRECT. What it
// asks for is a line on standard output, which is answered by a line on
// standard input once it has happened.

import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { connect, SluiceError } from '../../../adapters/http/client/sluice.js'
import { makeScenarios } from './jsclient_scenarios.mjs'

const [, , name, url, direct] = process.argv
const answers = createInterface({ input: process.stdin })
async function ask(what) {
  process.stdout.write(what + '\n')
  await once(answers, 'line')
}

// A JSON web token by the secret of the broker's configuration.
function tokenFor(user, seconds, serial = 0) {
  const part = (o) => Buffer.from(JSON.stringify(o)).toString('base64url')
  const text = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: user, exp: Math.floor(Date.now() / 1000) + seconds, serial })}`
  return `${text}.${createHmac('sha256', process.env.TOKEN_SECRET).update(text).digest('base64url')}`
}

process.on('unhandledRejection', (e) => { throw e })
await makeScenarios({ connect, SluiceError, WebSocket, assert, ask, sleep, url, direct, tokenFor })(name)
answers.close()
process.stdout.write('done\n')
process.exitCode = 0
