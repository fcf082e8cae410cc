// Uses all of what sluice.d.ts says there is, and is type-checked only.

import { connect, Client, Message, SluiceError, Subscription } from '@sluicemq/client'
import type { Address, ConsumeOptions, From, Gap, Handler, Headers, NackOptions, Options, PublishOptions, RequestOptions, Source, State, SubscribeOptions } from '@sluicemq/client'

type Reading = { celsius: number }

const options: Options = {
  token: async () => 'token',
  user: 'ann', password: () => 'secret', client: 'types', WebSocket: globalThis.WebSocket,
  buffer: 10, bufferBytes: 1 << 10, backoff: { min: 1, max: 2 }, heartbeat: 1000, dedup: false,
  onState: (state: State, why?: Error) => console.log(state, why?.message),
  onError: (err: unknown) => console.error(err),
}
const client: Client = connect('ws://127.0.0.1:8080/ws', options)
connect()
connect(null)
connect(new URL('https://broker.example'), { token: 'fixed' })

const headers: Headers = [['a', '1'], ['a', '2']]
const publishing: PublishOptions = {
  type: 'text/plain', headers, key: 'k', id: 'i', ttl: 1, delay: 1, priority: 9, retain: true, mandatory: true,
  durable: false, replyTo: 'r', correlationId: new Uint8Array(1),
}
const addresses: Address[] = ['a/b', { topic: 'a/b' }, { queue: 'q' }, { exchange: 'e' }, { exchange: 'e', key: 'k' }]
const sources: Source[] = ['a/#', { topic: 'a' }, { exchange: 'e', key: 'k' }, { queue: 'q' }, { topic: 'a', group: 'g' }]
const starts: From[] = ['earliest', 1042, '-100', '@2h']

async function all(): Promise<void> {
  const ready: Client = await client.ready
  const state: State = ready.state
  const most: number = ready.limits.max_credit
  const who: string | undefined = ready.user
  console.log(state, most, who, ready.url)

  for (const to of addresses) {
    const offset: number = await client.pub(to, { celsius: 21.5 }, publishing)
    console.log(offset)
  }
  await client.pub('bytes', new Uint8Array([1, 2]))
  await client.pub('nothing')

  const subscribing: SubscribeOptions = {
    from: starts[0], where: "unit = 'c'", retained: true, credit: 100, concurrency: 2,
    onGap: async (gap: Gap) => console.log(gap.from + gap.to), onCaughtUp: () => {},
  }
  const handler: Handler<Reading> = async (message) => console.log(message.data.celsius.toFixed(1))
  for (const source of sources) client.sub(source, handler, subscribing)
  const live: Subscription<Reading> = client.sub<Reading>('plant/+/temp', subscribing)
  await live.ready
  for await (const m of live) {
    const message: Message<Reading> = m
    const celsius: number = message.data.celsius
    const told: [number, number, string, number, boolean, Headers] = [m.offset, m.time, m.topic, m.attempt, m.retained, m.headers]
    const untold: (string | undefined)[] = [m.key, m.id, m.type, m.replyTo, m.publisher.user, m.publisher.client, m.publisher.via]
    const more: [string | Uint8Array | undefined, number | undefined, number | undefined] = [m.correlationId, m.ttl, m.priority]
    console.log(celsius, told, untold, more)
    if (live.position !== undefined) break
  }
  const next: IteratorResult<Message<Reading>> = await live.next()
  if (!next.done) console.log(next.value.data.celsius)
  await live.return()
  await live.close()

  const consuming: ConsumeOptions = { from: 'earliest', where: 'priority > 5', ordered: true, credit: 1, ack: true, create: false, exclusive: true, concurrency: 4 }
  const nack: NackOptions = { requeue: false, delay: 1000, reason: 'bad' }
  client.consume<Reading>('jobs', (m) => m.data.celsius, consuming)
  for await (const job of client.consume({ queue: 'jobs' })) {
    await job.extend(60_000)
    await job.ack()
    await job.nack()
    await job.nack(nack)
    const at: number = await job.reply({ done: true }, { ttl: 1 })
    console.log(at)
  }

  const asking: RequestOptions = { timeout: 1000, mandatory: false, headers: { unit: 'c' } }
  const answer: Message<string> = await client.request<string>({ queue: 'svc' }, 'now?', asking)
  console.log(answer.data.toUpperCase())
  const service: Subscription = client.respond('svc/time', () => new Date().toISOString(), { credit: 8 })
  console.log(service.position)

  await client.refresh()
  await client.refresh('another')
  try {
    await client.close({ timeout: 100 })
  } catch (err) {
    if (err instanceof SluiceError) {
      const code: string = err.code
      const again: boolean | undefined = err.retry
      console.log(code, again, err.from, err.to, err.message)
    }
  }
}

async function wrong(m: Message<Reading>): Promise<void> {
  // @ts-expect-error a retained request is none
  await client.request('a', 1, { retain: true })
  // @ts-expect-error a queue has no filter
  client.consume({ filter: 'a' })
  // @ts-expect-error a state is one of four
  const state: State = 'lost'
  // @ts-expect-error what comes has the type that was said
  m.data.fahrenheit
  // @ts-expect-error it is read only
  m.offset = 1
  // @ts-expect-error a time is in milliseconds
  await client.pub('a', 1, { ttl: '1s' })
  // @ts-expect-error there is no such option
  connect(null, { reconnect: true })
}

export { all, wrong }
