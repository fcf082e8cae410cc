// The lines that do with other clients what the page does, for one topic.
//
// SPDX-License-Identifier: Apache-2.0

// A word of a shell's line.
const word = (s) => /^[\w@%:,./+-]+$/.test(s) ? s : `'${s.replaceAll("'", `'\\''`)}'`
const js = (s) => `'${JSON.stringify(s).slice(1, -1).replaceAll('\\"', '"').replaceAll("'", "\\'")}'`
const levels = (topic) => topic.split('/').map((l) => encodeURIComponent(l).replaceAll('%2B', '+').replaceAll('%24', '$').replaceAll('%40', '@')).join('/')
// A STOMP destination, where a dot may divide levels and a star is a wildcard.
function destination(topic) {
  const said = topic.split('/').map((l) => l == '*' || l == '>' ? `%${l.charCodeAt().toString(16).toUpperCase()}` : l.replaceAll('%', '%25').replaceAll(',', '%2C'))
  return `/topic/${said.length > 1 ? said.join('/') : said[0].replaceAll('.', '%2E')}`
}
const isJSON = (s) => { try { return JSON.parse(s) != null && !/^\s*"/.test(s) } catch { return false } }

/**
 * The lines for a verb: pairs of a client's name and its line.
 * `doors` tells the ports of the other protocols: {mqtt: {port, tls}, stomp: {port, tls}}.
 */
export function linesFor(verb, { topic, filter, data, from, retain, origin, doors }) {
  const { host, hostname, protocol } = new URL(origin)
  const at = protocol == 'https:' ? origin : host
  const ws = origin.replace(/^http/, 'ws')
  const lines = []
  const add = (name, line) => lines.push([name, line])
  const where = (door, dash) => {
    const d = doors[door]
    return (hostname == '127.0.0.1' && door == 'mqtt' ? '' : ` ${dash[0]} ${hostname}`) +
      (d.port == 1883 ? '' : ` ${dash[1]} ${d.port}`) + (d.tls && door == 'mqtt' ? ' --tls-use-os-certs' : '')
  }
  const stomp = doors.stomp && !doors.stomp.tls ? `stomp${where('stomp', ['-H', '-P'])}` : null
  const sayable = (s) => !/\s/.test(s) // stomp.py has words, and no quotes
  const to = host == '127.0.0.1:8080' ? '' : ` -b ${ws}`
  if (verb == 'send') {
    const type = isJSON(data) ? ` -H 'Content-Type: application/json'` : ''
    add('curl', `curl${type} ${/^@/.test(data) ? '--data-raw' : '-d'} ${word(data)} ${word(`${at}/t/${levels(topic)}${retain ? '?retain' : ''}`)}`)
    if (doors.mqtt) add('mosquitto', `mosquitto_pub${where('mqtt', ['-h', '-p'])} -t ${word(topic)} -m ${word(data)} -q 1${retain ? ' -r' : ''}`)
    if (stomp && sayable(topic) && data == data.split(/\s+/).join(' ')) add('stomp.py', `printf '%s\\n' ${word(`send ${destination(topic)} ${data}`)} | ${stomp}`)
    add('sluice', `sluice pub ${/^-/.test(data) ? '-- ' : ''}${word(topic)} ${word(data)}${retain ? ' --retain' : ''}${to}`)
    add('sluice.js', `connect(${js(ws)}).pub(${js(topic)}, ${isJSON(data) ? data.trim() : js(data)}${retain ? ', { retain: true }' : ''})`)
    if (doors.mqtt) add('MQTT.js', `mqtt.connect(${js(`${ws}/mqtt`)}).publish(${js(topic)}, ${js(data)}, { qos: 1${retain ? ', retain: true' : ''} })`)
    if (doors.stomp) add('STOMP.js', `client.publish({ destination: ${js(destination(topic))}, body: ${js(data)} })`)
    return lines
  }
  const begin = verb == 'replay' ? from || '-20' : ''
  add('curl', verb == 'replay' ? `curl ${word(`${at}/t/${levels(filter)}?from=${encodeURIComponent(begin).replaceAll('%40', '@').replaceAll('%3A', ':')}`)}` : `curl -N ${word(`${at}/sse/${levels(filter)}`)}`)
  const subscribed = begin ? `$replay/${begin}/${filter}` : filter
  if (doors.mqtt) add('mosquitto', `mosquitto_sub${where('mqtt', ['-h', '-p'])} -t ${word(subscribed)} -v`)
  if (stomp && !begin && sayable(filter)) add('stomp.py', `${stomp} -L ${word(destination(filter))}`)
  add('sluice', `sluice sub ${word(filter)}${begin ? ` --from ${word(begin)}` : ''}${to}`)
  add('sluice.js', `connect(${js(ws)}).sub(${js(filter)}, m => console.log(m.topic, m.data)${begin ? `, { from: ${js(begin)} }` : ''})`)
  if (doors.mqtt) add('MQTT.js', `mqtt.connect(${js(`${ws}/mqtt`)}).subscribe(${js(subscribed)}).on('message', (t, m) => console.log(t, String(m)))`)
  if (doors.stomp) add('STOMP.js', `client.subscribe(${js(destination(filter))}, m => console.log(m.body)${begin ? `, { from: ${js(begin)} }` : ''})`)
  return lines
}
