/** Where a message goes. A string is a topic. */
export type Address = string | { topic: string } | { queue: string } | { exchange: string; key?: string }

/** What a subscription takes from. A string is a filter; to consume() it is the name of a queue. */
export type Source =
  | string
  | { topic: string }
  | { exchange: string; key?: string }
  | { queue: string }
  | { topic: string; group: string }

/** An offset, or "earliest", "latest", "-100" (the last hundred), "@2h" (since then), "@2026-11-01T08:00:00Z". */
export type From = number | string

/** Bytes are sent as they are, a string as text, any other JSON value as JSON. */
export type Data = unknown

export type Headers = Record<string, string> | [name: string, value: string][]

export interface PublishOptions {
  type?: string
  headers?: Headers
  key?: string
  /** The message's own id; one is made unless `dedup` is false. */
  id?: string
  /** Milliseconds. */
  ttl?: number
  /** Milliseconds. */
  delay?: number
  /** 0 to 9. */
  priority?: number
  retain?: boolean
  /** true: fails with "no_responders" where nobody would get it. */
  mandatory?: boolean
  /** false: the promise does not wait for the disk, and a lost connection may lose the message. */
  durable?: boolean
  replyTo?: string
  correlationId?: string | Uint8Array
}

export interface RequestOptions extends Omit<PublishOptions, 'replyTo' | 'retain'> {
  /** Milliseconds until it fails with code "timeout": 5000. */
  timeout?: number
}

export interface Gap {
  /** The first offset that is missing. */
  from: number
  /** The first that is not. */
  to: number
}

export interface SubscribeOptions {
  from?: From
  /** A selector, such as "priority > 5 AND region IN ('eu', 'us')": only messages that it holds for. */
  where?: string
  /** The last values first. */
  retained?: boolean
  /** How many messages may wait here to be taken: 256. */
  credit?: number
  /** Messages are missing: retention has removed them. Told to onError unless this is given. */
  onGap?: (gap: Gap) => void | Promise<void>
  /** What was there has been taken; what follows is live. After a new connection it comes again. */
  onCaughtUp?: () => void | Promise<void>
  /** How many calls of the function may run at a time: 1. */
  concurrency?: number
}

export interface ConsumeOptions {
  /** Where a new group begins. */
  from?: From
  /** true: a new group hands out one message of a key at a time. */
  ordered?: boolean
  /** A selector: only messages that it holds for; the others are left for others. */
  where?: string
  /** How many messages may be held at a time: 32. */
  credit?: number
  /** false: a message is done when it comes. */
  ack?: boolean
  create?: boolean
  exclusive?: boolean
  concurrency?: number
}

export interface NackOptions {
  /** false: to the dead letters. */
  requeue?: boolean
  /** Milliseconds until it comes again; the queue's backoff unless given. */
  delay?: number
  reason?: string
}

export declare class Message<T = any> {
  readonly offset: number
  /** When the broker took it, milliseconds since 1970. */
  readonly time: number
  readonly topic: string
  readonly data: T
  /** 1 unless it comes again. */
  readonly attempt: number
  readonly retained: boolean
  readonly headers: Headers
  readonly key?: string
  readonly id?: string
  readonly type?: string
  readonly replyTo?: string
  readonly correlationId?: string | Uint8Array
  /** Milliseconds it still has. */
  readonly ttl?: number
  readonly priority?: number
  readonly publisher: { user?: string; client?: string; via?: string }
  /** It is done. Resolves when that is durable; fails with "lost" if the connection was lost, and then the message comes again. */
  ack(): Promise<void>
  nack(options?: NackOptions): Promise<void>
  /** Holds it for so many milliseconds from now. */
  extend(by: number): Promise<void>
  reply(data?: Data, options?: PublishOptions): Promise<number>
}

export declare class Subscription<T = any> implements AsyncIterableIterator<Message<T>> {
  /** The broker has begun it, or has refused it. */
  readonly ready: Promise<void>
  /** The offset to go on from after the last message taken; undefined while it is not known, and for queues. */
  readonly position: number | undefined
  next(): Promise<IteratorResult<Message<T>>>
  return(): Promise<IteratorResult<Message<T>>>
  [Symbol.asyncIterator](): this
  close(): Promise<void>
}

export type Handler<T = any> = (message: Message<T>) => unknown

export type State = 'connecting' | 'open' | 'waiting' | 'closed'

export interface Options {
  /** A function is asked at each connection. */
  token?: string | (() => string | Promise<string>)
  user?: string
  password?: string | (() => string | Promise<string>)
  /** The client's name. */
  client?: string
  /** The class to use where there is none: that of the package ws. */
  WebSocket?: unknown
  /** How many publishes may wait for the connection: 1000. Beyond it the oldest fails with "buffer_full". */
  buffer?: number
  /** How many bytes they may have: 16 MiB. */
  bufferBytes?: number
  /** The pause between attempts in milliseconds: 250 at first, growing to 30,000. */
  backoff?: { min?: number; max?: number }
  /** Milliseconds of silence after which the broker is asked for a sign: 15,000. */
  heartbeat?: number
  /** false: messages get no id, and one whose answer was lost fails instead of being sent again. */
  dedup?: boolean
  onState?: (state: State, why?: Error) => void
  /** What nobody else is told: errors of handlers, gaps. console.error unless given. */
  onError?: (err: unknown) => void
}

export declare class Client {
  readonly state: State
  readonly url: string
  /** The broker's limits, once connected. */
  readonly limits: Record<string, number>
  readonly user?: string
  /** The first connection; fails only if there can be none. */
  readonly ready: Promise<Client>
  /** Publishes. Resolves to the offset once the message is on disk. */
  pub(to: Address, data?: Data, options?: PublishOptions): Promise<number>
  sub<T = any>(filter: Source, options?: SubscribeOptions): Subscription<T>
  sub<T = any>(filter: Source, handler: Handler<T>, options?: SubscribeOptions): Subscription<T>
  /** Takes off a queue. With a handler a message is acknowledged when the handler is done, and given back if it fails. */
  consume<T = any>(queue: Source, options?: ConsumeOptions): Subscription<T>
  consume<T = any>(queue: Source, handler: Handler<T>, options?: ConsumeOptions): Subscription<T>
  request<T = any>(to: Address, data?: Data, options?: RequestOptions): Promise<Message<T>>
  /** Answers requests with what the handler returns. */
  respond<T = any>(source: Source, handler: Handler<T>, options?: SubscribeOptions | ConsumeOptions): Subscription<T>
  /** Logs in anew, with another token if one is given, on this connection or on another. Done by itself before a token ends that a function gives. */
  refresh(token?: Options['token']): Promise<void>
  /** Waits for what is not answered yet, at most `timeout` milliseconds (5000), and ends everything. */
  close(options?: { timeout?: number }): Promise<void>
}

/** Codes are the broker's, and "lost", "buffer_full", "closed", "gap". */
export declare class SluiceError extends Error {
  readonly code: string
  /** The same may succeed later. */
  readonly retry?: boolean
  readonly from?: number
  readonly to?: number
}

/** Opens a client. Without a URL it is the broker that served this module. */
export declare function connect(url?: string | URL | null, options?: Options): Client
