// Says the lines of the page /try: node try_lines.mjs ORIGIN PORTS TOPIC DATA. On
// standard output comes an object of lines by verb and client; then each line of
// JavaScript that comes by standard input is run, and what it receives printed.

import mqtt from 'mqtt'
import { Client } from '@stomp/stompjs'
import { createInterface } from 'node:readline'
import { WebSocket } from 'ws'
import { connect as open } from '../../../adapters/http/client/sluice.js'
import { linesFor } from '../../../adapters/http/client/try_lines.js'

const [, , origin, ports, topic, data] = process.argv
globalThis.WebSocket = WebSocket
const all = {}
for (const verb of ['receive', 'send', 'replay']) {
  all[verb] = Object.fromEntries(linesFor(verb, { topic, filter: topic, data, retain: false, from: '', origin, doors: JSON.parse(ports) }))
}
process.stdout.write(JSON.stringify(all) + '\n')

const client = new Client({ brokerURL: origin.replace(/^http/, 'ws') + '/stomp' })
await new Promise((yes) => { client.onConnect = yes; client.activate() })
const console = { log: (...words) => process.stdout.write(JSON.stringify(words) + '\n') }
const connect = (url) => open(url, { WebSocket })
for await (const line of createInterface({ input: process.stdin })) {
  new Function('mqtt', 'connect', 'client', 'console', line)(mqtt, connect, client, console)
}
process.exit(0)
