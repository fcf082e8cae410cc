// The page /try: publish beside a live tail, with the lines of other clients.
//
// SPDX-License-Identifier: Apache-2.0

import { connect } from './sluice.js'
import { linesFor } from './try_lines.js'

const $ = (id) => document.getElementById(id)
const publish = $('publish').elements, watch = $('watch').elements
const most = 500 // messages that the page keeps

function element(name, text, className) {
  const e = document.createElement(name)
  if (text != null) e.textContent = text
  if (className) e.className = className
  return e
}

// The connection.

let client, tail, doors = {}
const words = { connecting: 'connecting', open: 'connected', waiting: 'no connection, trying again', closed: 'not connected' }

function begin(login = {}) {
  client?.close({ timeout: 0 })
  const mine = client = connect(null, {
    ...login,
    onState: (state) => {
      if (client && mine !== client) return
      $('state').textContent = words[state]
      $('state').className = `state ${state}`
    },
    onError: (err) => note(err.message ?? String(err)),
  })
  mine.ready.then(
    () => { $('login').hidden = true; if (mine.user) $('state').textContent = `connected as ${mine.user}` },
    (err) => {
      if (mine !== client || err.code != 'unauthenticated') return
      if (login.password != null) $('login-why').textContent = 'They were refused. Once more?'
      $('login').hidden = false
      $('login').elements.user.focus()
    },
  )
  startTail()
}

$('login').addEventListener('submit', (e) => {
  e.preventDefault()
  const { user, password } = e.target.elements
  begin(user.value ? { user: user.value, password: password.value } : { token: password.value, password: '' })
})

// Publishing.

// Whether a text is to be published as JSON: objects and lists are.
function structured(text) {
  if (!/^\s*[[{]/.test(text)) return false
  try { JSON.parse(text) } catch { return false }
  return true
}

async function send() {
  const topic = publish.topic.value, text = publish.data.value
  const said = $('published')
  said.className = 'hint'
  said.textContent = client.state == 'open' ? 'on its way' : 'waits for the connection'
  try {
    const offset = await client.pub(topic, text, {
      retain: publish.retain.checked || undefined,
      type: structured(text) ? 'application/json' : undefined,
    })
    said.className = 'hint good'
    said.textContent = `On disk, at offset ${offset}.`
  } catch (err) {
    said.className = 'hint bad'
    said.textContent = err.message
  }
}
$('publish').addEventListener('submit', (e) => { e.preventDefault(); send() })
$('publish').addEventListener('keydown', (e) => {
  if (e.key == 'Enter' && (e.ctrlKey || e.metaKey)) { e.preventDefault(); $('publish').requestSubmit() }
})

// The tail.

let waiting = [], drawing, seen = 0, paused = false, resume

const from = () => watch.from.value == 'at' ? watch.at.value.trim() : watch.from.value

function startTail() {
  tail?.close()
  waiting = []
  $('messages').replaceChildren()
  seen = 0
  count()
  const sub = tail = client.sub(watch.filter.value, { from: from() || undefined, where: watch.where.value.trim() || undefined, onGap: (g) => note(`Messages from offset ${g.from} up to ${g.to} are not there any more.`) })
  sub.ready.catch((err) => { if (sub === tail && client.state == 'open') note(err.message) })
  ;(async () => {
    try {
      for await (const m of sub) {
        if (sub !== tail) return
        seen++
        waiting.push(row(m))
        if (waiting.length > most) waiting.shift()
        draw()
        // What comes faster than it can be shown waits in the broker.
        if (seen % 100 == 0) await drawn()
        while (paused) await new Promise((yes) => { resume = yes })
      }
    } catch {} // told by ready, or by the state
  })()
}

const drawn = () => new Promise((yes) => setTimeout(yes, 16))

function draw() {
  drawing ??= setTimeout(() => {
    drawing = null
    const list = $('messages')
    const rows = waiting.splice(0).reverse()
    list.prepend(...rows)
    while (list.children.length > most) list.lastChild.remove()
    count()
  }, 16)
}

const count = () => { $('count').textContent = seen == 0 ? 'no messages yet' : `${seen.toLocaleString('en')} message${seen == 1 ? '' : 's'}${seen > most ? `, the last ${most} here` : ''}` }

function note(text) {
  waiting.push(element('li', text, 'note'))
  draw()
}

const hex = (bytes) => Array.from(bytes.subarray(0, 2048), (b) => b.toString(16).padStart(2, '0')).join(' ') + (bytes.length > 2048 ? ' …' : '')
const shown = (data) => data instanceof Uint8Array ? hex(data) : typeof data == 'string' ? data : JSON.stringify(data)

function row(m) {
  const li = element('li', null, 'new'), details = element('details'), summary = element('summary')
  const text = shown(m.data)
  summary.append(element('span', m.offset, 'offset'), element('span', m.topic, 'topic'), element('span', text.slice(0, 300), 'data'), element('span', m.publisher.via ?? '', 'via'))
  details.append(summary)
  details.addEventListener('toggle', () => {
    if (!details.open || details.children.length > 1) return
    const list = element('dl')
    const add = (name, value) => { if (value != null && value !== '') list.append(element('dt', name), element('dd', value)) }
    add('topic', m.topic)
    add('offset', m.offset)
    add('time', new Date(m.time).toISOString())
    add('from', [m.publisher.user, m.publisher.client, m.publisher.via].filter(Boolean).join(' · '))
    add('type', m.type)
    add('key', m.key)
    add('id', m.id)
    add('reply to', m.replyTo)
    add('priority', m.priority)
    add('expires in', m.ttl != null ? `${m.ttl} ms` : null)
    for (const [name, value] of Array.isArray(m.headers) ? m.headers : Object.entries(m.headers)) add(name, value)
    const whole = typeof m.data == 'object' && !(m.data instanceof Uint8Array) ? JSON.stringify(m.data, null, 2) : text
    details.append(list, element('pre', whole))
  })
  li.append(details)
  return li
}

$('watch').addEventListener('submit', (e) => { e.preventDefault(); setPaused(false); startTail() })
watch.from.addEventListener('change', () => {
  $('at').hidden = watch.from.value != 'at'
  if (watch.from.value == 'at') watch.at.focus()
  else $('watch').requestSubmit()
})
$('clear').addEventListener('click', () => { waiting = []; $('messages').replaceChildren() })

function setPaused(on) {
  paused = on
  $('pause').setAttribute('aria-pressed', on)
  $('pause').textContent = on ? 'Go on' : 'Pause'
  if (!on) resume?.()
}
$('pause').addEventListener('click', () => setPaused(!paused))

// The lines.

function showLines() {
  const verb = document.querySelector('[name=verb]:checked').value
  const lines = linesFor(verb, {
    topic: publish.topic.value, filter: publish.topic.value, data: publish.data.value, retain: publish.retain.checked,
    from: from(), origin: location.origin, doors,
  })
  $('lines').replaceChildren(...lines.map(([name, line]) => {
    const li = element('li'), code = element('code', line), copy = element('button', 'Copy')
    code.tabIndex = 0
    copy.type = 'button'
    copy.setAttribute('aria-label', `Copy the line for ${name}`)
    copy.addEventListener('click', async () => {
      await copyText(line, code)
      copy.textContent = 'Copied'
      setTimeout(() => { copy.textContent = 'Copy' }, 1500)
    })
    li.append(element('span', name), code, copy)
    return li
  }))
}

// A page that did not come over TLS, nor from this machine, has no clipboard:
// then the line is selected, and the browser's own key copies it.
async function copyText(text, code) {
  try {
    await navigator.clipboard.writeText(text)
  } catch {
    getSelection().selectAllChildren(code)
    document.execCommand('copy')
  }
}

for (const e of [$('publish'), $('watch'), document.querySelector('.tabs')]) e.addEventListener('input', showLines)
showLines()
fetch('/try.json').then((r) => r.json()).then((d) => { doors = d; showLines() }, () => {})
begin()
