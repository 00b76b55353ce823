/** A member of a channel's presence list: its presence data, and the fields that the server adds. */
export interface Member {
  /** Stays the same when the member's client reconnects or its page is reloaded, unless that takes too long. */
  memberId: string;
  /** When the member joined, in Unix milliseconds. */
  subscribed: number;
  /** Whether the user has not used the page for a while; see `idle` of Pushy. */
  idle: boolean;
  /** The number of the user's connections, where the server has one member for each user. */
  tabs?: number;
  /** What `update` of the channel, or the server, has set. */
  state?: Record<string, unknown> | null;
  [name: string]: unknown;
}

/** The answer of the auth endpoint, with which a client can subscribe to a private channel. */
export interface Token {
  auth?: string;
  /** The presence data, which the other members see. */
  data?: unknown;
  /**
   * When the token expires, in Unix milliseconds by the server's clock. The client does not need it: it reads the token,
   * and the server notifies it.
   */
  expires?: number;
}

/**
 * Returns the token for a channel (in lower case) and this connection's socketId. To refuse,
 * throw an object with an HTTP `status` and optionally a `body`. A status from 400 to 499 is
 * final; after anything else the client retries.
 */
export type Authorize = (channel: string, socketId: string) => Token | Promise<Token>;

/** A failed authorization. */
export interface AuthError {
  channel: string;
  /** The HTTP status, 0 if there was no answer, 2xx if the answer was not JSON. */
  status: number;
  body: string;
  /** The time of the next attempt, in Unix milliseconds; undefined if there is none. */
  retryAt?: number;
}

/**
 * - `idle`: nothing has requested a connection yet, or the URL is relative and there is no page
 * - `connecting`: the client tries the transports
 * - `connected`
 * - `waiting`: the client will reconnect at `retryAt`
 * - `closed`: by `disconnect()`, or because the server refused this client permanently
 */
export type State = "idle" | "connecting" | "connected" | "waiting" | "closed";

export interface StateEvent {
  state: State;
  /** The time of the next attempt, in Unix milliseconds, while `waiting`. */
  retryAt?: number;
  /** The transport that last connected. */
  transport?: string;
  /**
   * Why the client is `waiting` or `closed`: the close code; 1006 if there was none; 4001 if the
   * page was left, reloaded, or is kept for the back button; 401 or 403 if the server refused the
   * connection with this HTTP status, which is final: call `connect()`, for example after a login.
   */
  code?: number;
  reason?: string;
  /** The beginning of the HTTP answer that refused the connection. */
  body?: string;
}

/** The URL of the server: a string, a URL object, or a function that is called before each attempt. */
export type Url = string | { readonly href: string } | (() => string | Promise<string>);

export type Transport = "websocket" | "streaming" | "polling";

/** HTTP headers: an object, pairs, or the browser's Headers. */
export type HeaderList = Record<string, string> | Iterable<readonly [string, string] | string[]>;

export interface Options {
  /**
   * The auth endpoint, which returns the tokens for private channels: a URL, to which
   * `channel` and `connection_id` are posted as a form, or a function. An endpoint whose answers have `batch`, as those
   * of `AuthHandler`, is asked for up to that many channels at once. Tokens that expire are renewed in time. Default: "auth" under
   * the server's prefix, such as "/pushy/auth" for "/pushy" and "https://rt.example/live/auth"
   * for "https://rt.example/live"; it is called only after the server has demanded a token.
   */
  auth?: string | Authorize;
  /** Writes each step and each message to the console, without the tokens that the client sends (more.js). */
  debug?: boolean;
  /**
   * The transports, which are tried in this order; all three by default. An empty list, or one
   * with another name, is a TypeError. The transport that connects is used again after a reconnect;
   * after three failures all are tried. With more.js it is also remembered for the next pages, for an hour, and
   * if it is not the first, those before it are tried in the background, after 5 s, 10 s and so on
   * up to 10 minutes, and the next connection uses the one that works. The server sees each of
   * these attempts as a connection that is closed immediately.
   */
  transports?: Transport[];
  /** The page's own sockjs-client, which is used instead of our transports. */
  SockJS?: new (url: string) => object;
  /** The global one by default. Node before version 22 needs that of the `ws` package. */
  WebSocket?: new (url: string) => object;
  /** The global one by default. */
  fetch?: (url: any, options?: any) => Promise<any>;
  /** Headers that are sent to the auth endpoint. */
  headers?: HeaderList | (() => HeaderList | Promise<HeaderList>);
  /** What happens to a command while there is no connection. "wait" by default, for at most 100 of them. */
  offline?: "wait" | "reject";
  /** Time limit of the answer to a command in milliseconds; 30,000 by default, 0 until the connection ends. */
  timeout?: number;
  /**
   * Bounds of the random pause before an attempt, in milliseconds; 500 and 20,000 by default.
   * The time of a Retry-After header (at most an hour) is added. The first attempt after a
   * connection is within the time that the server has sent instead, if it has: 1 to 60 s.
   */
  minDelay?: number;
  maxDelay?: number;
}

export interface ExecOptions {
  offline?: "wait" | "reject";
  timeout?: number;
}

/**
 * The error that rejects a command. The code is one of the server, such as "200" for an
 * unknown command, or one of these:
 * - `unknown`: the connection was lost before the answer. The command may have been carried out, and is not sent again
 * - `timeout`: no answer arrived; many commands have none
 * - `too-large`: the server refused the message because of its size. The command was not carried out, and is not sent
 *   again
 * - `offline`, `closed`: the command was not sent, because there was no connection
 * - `full`: the command was not sent, because too many commands are queued
 */
export class PushyError extends Error {
  constructor(message: string, code: string);
  code: string;
}

/** Options of a channel, for its next subscriptions. */
export interface ChannelOptions {
  /**
   * The newest events of a channel that keeps events: their number (at most 500), or that and their largest age.
   * Listeners receive them like new events, after the first subscription, and again after a gap.
   */
  rewind?: number | { events?: number; seconds?: number };
  /** If not all missed events can be replayed, those that are left are. `pushy:gap` fires, too. */
  partial?: boolean;
  /**
   * How the members arrive. "diff" by default: all at the beginning, and then the changes, at most one message each
   * 250 ms; after a reconnect only what has changed. "list": each change at once, and the whole list after a
   * reconnect. "count": only `count`, and `pushy:count` after each change. "none": nothing.
   */
  presence?: "diff" | "list" | "count" | "none";
  /**
   * Whether this client stays a member of a private channel while its connection is lost, or its page is reloaded, for
   * the time that the server allows (15 s by default). True by default. The other members notice nothing, but for that
   * time they also see a user whose tab was closed.
   */
  hold?: boolean;
}

/** Whether a subscription continues where the last one ended. */
export interface Recovery {
  /** Whether no event is missing. Undefined if there is nothing to continue from, or if the channel keeps no events. */
  recovered?: boolean;
  /**
   * Why events are missing: "trimmed", "expired", "epoch", "restarted", "ahead", "large", "off", "denied" or
   * "unavailable". It is undefined if the channel keeps no events.
   */
  reason?: string;
  /** The number of events that follow as a replay. */
  replay?: number;
  /** The offset of the oldest event that is kept. */
  first?: number;
  [name: string]: unknown;
}

/** A message from the server that carries an event. */
export interface Message {
  event: string;
  data?: any;
  channel?: string;
  /** The event's place in the channel, if the channel keeps events. */
  offset?: number;
  /**
   * The memberId of the member that has sent the event with `send`; only the server can set it. It is undefined if
   * the server has published the event.
   */
  from?: string;
}

/** A page of kept events. */
export interface History {
  epoch: string;
  events: { event: string; data: any; offset: number; time: number }[];
  /** Whether there are more. */
  more: boolean;
}

/** An event of a channel, as `for await` yields it. */
export interface ChannelEvent {
  event: string;
  data: any;
  /** Whether the event was published; otherwise it is one of the client's own, such as `subscribe`. */
  published: boolean;
  /** The event's place in the channel, if the channel keeps events. */
  offset?: number;
  /** The memberId of the member that has sent it; see Message. */
  from?: string;
}

/** The data of a page's own events, by their names. */
export type Events = Record<string, any>;

/** Listeners by event. If a listener throws, the others are still called. */
export interface Emitter<E = Events> {
  /** Calls listener for each event with that name. */
  bind<K extends keyof E & string>(event: K, listener: (data: E[K], message: Message) => void): this;
  /** Removes a listener, or all listeners of the event. */
  unbind<K extends keyof E & string>(event: K, listener?: (data: E[K]) => void): this;
  /** The same as bind. */
  on<K extends keyof E & string>(event: K, listener: (data: E[K], message: Message) => void): this;
  /** The same as unbind. */
  off<K extends keyof E & string>(event: K, listener?: (data: E[K]) => void): this;
}

/** The client's own events of a channel, and the arguments of their listeners. */
export interface ChannelEvents {
  /**
   * The subscription has started, for the first time or again; with all members if there is presence. Replayed events
   * follow: with `rewind`, clear what you show if `recovered` is not true.
   */
  subscribe: [members?: Member[], recovery?: Recovery];
  /** The subscription has ended: by `unsubscribe()`, by the server, or with the connection. */
  unsubscribe: [reason?: string];
  /**
   * The subscription, or its renewal, was refused permanently; call `subscribe()` to try again. In the second case the
   * subscription goes on until `unsubscribe` fires, a little after its token has expired.
   */
  "subscribe-error": [reason: string, detail?: AuthError | PushyError];
  /**
   * The auth endpoint returned no token, for a subscription or its renewal. If `retryAt` is set, the client retries;
   * after ten consecutive failures it gives up the channel.
   */
  "auth-error": [error: AuthError];
  "pushy:member-added": [member: Member];
  "pushy:member-quit": [member: Member];
  /** A member's data, state, `idle` or `tabs` have changed. */
  "pushy:member-updated": [member: Member];
  /** The list of members was replaced or completed, for example because presence has begun; with all members. */
  "pushy:presence-sync": [members: Member[]];
  /** With `presence: "count"`: the number of members has changed (more.js). */
  "pushy:count": [count: number];
  /**
   * Events of the channel may have been missed: fetch the current state. It fires after a reconnect, if not all missed
   * events are replayed, and while connected, if the server has lost events. If all clients have such a gap at the
   * same time (the reasons "restarted" and "epoch"), it fires after a random time of up to 5 s.
   */
  "pushy:gap": [gap: Recovery];
  /** The server has lost events of the channel. `pushy:gap` covers this, too. */
  "pushy:resync": [data?: Recovery];
  /**
   * The connection was too slow, so that `count` events of the channel were not sent that were published as `Latest`
   * or `Droppable`. It fires when the client has caught up, at most once a second.
   */
  "pushy:dropped": [dropped: { count: number }];
}

/** The client's own events of a Pushy. */
export interface PushyEvents {
  connect: [pushy: Pushy<any>];
  disconnect: [pushy: Pushy<any>, why: { code: number; reason: string }];
  state: [state: StateEvent];
  "auth-error": [error: AuthError];
  /** An error from the server, including those that reject an `exec`. */
  "pushy:error": [error: { message: string; code: string }];
  /** Each message from the server, unchanged. */
  "internal-msg": [text: string];
}

/** Listeners for the client's own events, and for those that the server sends. */
interface Source<Own extends { [K in keyof Own]: any[] }, E> {
  /**
   * Calls listener for each event with that name. The listeners of the client's own events are
   * never called for published events; `events` receives a published event with such a name.
   */
  bind<K extends keyof Own>(event: K, listener: (...args: Own[K]) => void): this;
  bind<K extends Exclude<keyof E, keyof Own> & string>(event: K, listener: (data: E[K], message: Message) => void): this;
  /** Removes a listener, or all listeners of the event. */
  unbind(event: (keyof Own | keyof E) & string, listener?: (...args: any[]) => void): this;
  /** The same as bind. */
  on<K extends keyof Own>(event: K, listener: (...args: Own[K]) => void): this;
  on<K extends Exclude<keyof E, keyof Own> & string>(event: K, listener: (data: E[K], message: Message) => void): this;
  /** The same as unbind. */
  off(event: (keyof Own | keyof E) & string, listener?: (...args: any[]) => void): this;
  /**
   * Listeners for everything that the server sends, whatever its name is:
   * `channel.events.on("subscribe", …)` receives an event that was published as "subscribe".
   */
  readonly events: Emitter<E>;
}

/**
 * A channel. The module has everything; a page with the classic script pushy.js needs
 * `<script src="/pushy/more.js">` for what is marked with "more.js".
 *
 * `for await (const { event, data } of channel)` yields all its events, across reconnects, until
 * `unsubscribe()`; it throws if more than 10,000 are queued (more.js).
 * The data of its events can be typed: `pushy.channel<{ news: { title: string } }>("lobby")`.
 */
export interface Channel<E = Events> extends Source<ChannelEvents, E> {
  /** The name in its first spelling; names are case-insensitive. */
  readonly name: string;
  readonly subscribed: boolean;
  /** This client's id in the presence list, while it is subscribed. */
  readonly memberId: string | undefined;
  /**
   * The members by memberId, in joining order: a new Map after each change. It is empty in
   * channels without presence, and unchanged while the connection is lost. If there are over 500
   * members, the others arrive after `subscribe`, and `pushy:presence-sync` reports that all are there (more.js).
   */
  readonly members: Map<string, Member>;
  /** The number of members, in each presence mode but "none". */
  readonly count: number;
  /**
   * Subscribes, now or when there is a connection, and again after each reconnect, until
   * `unsubscribe()`, a refusal, or a removal by the server. Another call tries again after a
   * refusal, and immediately if a retry is planned. A token that is passed is used for the next
   * subscription that is sent on this connection, or to renew the present one; later ones call the auth endpoint. A
   * token that is for a user, and not for one connection, is used on each connection until it expires: render it into
   * the page, and no reconnect calls the auth endpoint.
   *
   * A token that expires is renewed after 75 to 90 % of its life. The client measures its age with the clock of the
   * device, from the time when it received the token, so it does not matter whether that clock is right; after a sleep
   * it never sends a token that has expired. A renewal that fails is tried again. If one is refused, the subscription
   * ends with its token.
   *
   * A refusal without a listener for `subscribe-error` or `auth-error` and without `for await`
   * is written to the console once.
   */
  subscribe(token?: Token): this;
  unsubscribe(): this;
  /**
   * Sends an event to the other members of a private channel, where the server allows it; its name must begin with
   * `client-`. It is not stored, and not sent again. The listeners of the others receive data, and a message with the
   * sender's memberId as `from`. An error of the server is reported as `pushy:error`. Returns whether the event was
   * sent: false if the channel is not subscribed at this time.
   */
  send(event: string, data?: unknown): boolean;
  [Symbol.asyncIterator](): AsyncGenerator<ChannelEvent, void, void>;
  /**
   * Returns events that the channel keeps, the newest 50 by default. The channel must be subscribed. It rejects with a
   * PushyError, "404" if the channel keeps none (more.js).
   */
  history(query?: { before?: number; after?: number; limit?: number }): Promise<History>;
  /** Returns the members of up to 100 users, by the user's id, without the users who are not members (more.js). */
  find(users: string[]): Promise<Record<string, Member[]>>;
  /** Sets the `state` of this client's member, where the server allows it: at most 1 KiB, four a second (more.js). */
  update(state: object | null): Promise<unknown>;
}

/** The direct messages of the server can have types: `new Pushy<{ moved: Move }>()`. */
export interface Pushy<E = Events> extends Source<PushyEvents, E> {}

export class Pushy<E = Events> {
  /**
   * The client connects with the first `connect()`, `subscribe()` or `exec()`.
   *
   * If the connection is lost, the client reconnects after a random pause that grows with each
   * failure, and subscribes to its channels again. It does not reconnect after `disconnect()`,
   * after the close codes 1002, 1003, 1007, 1008, 1010 and 3500 to 3999, and after an HTTP answer
   * 401 or 403; `state` is then "closed". When the page is left or reloaded, the client disconnects.
   * If the browser keeps the page for the back button, it reconnects when the page is shown again.
   *
   * In channels that keep events, events that were published meanwhile are replayed. They arrive
   * like new ones, in order, and none twice. If not all can be replayed, `pushy:gap` fires.
   *
   * @param url The URL of the server: its origin (with pushy under /pushy), its prefix or its
   *   socket path ("/pushy/socket"), relative to the document's base URL; "/pushy" by default. A
   *   query is sent with every request, after `v=2`, the version of the protocol. A function is called before each
   *   attempt; if it fails, the attempt fails. A URL that is not http, https, ws or wss, or that has a user name or
   *   password, throws a TypeError. If there is no page, as on a server that renders pages, a
   *   relative URL is accepted and the client does not connect.
   * @param options See Options. The auth endpoint can also be the second argument:
   *   `new Pushy(url, "/auth", options)`.
   */
  constructor(url?: Url, options?: Options);
  constructor(url?: Url, authHandler?: string | Authorize, options?: Options);
  readonly url: Url;
  readonly state: State;
  readonly connected: boolean;
  readonly connecting: boolean;
  /** The time of the next attempt, in Unix milliseconds, while `waiting`. */
  readonly retryAt: number | undefined;
  /** The id of this connection; each connection has a new one. */
  readonly socketId: string | undefined;
  /** The server's name for the connection's transport. */
  readonly protocol: string | undefined;
  /** The client's name for the transport that last connected. */
  readonly transport: string | undefined;
  /** The channels by name, in lower case. */
  readonly channels: Map<string, Channel>;

  /**
   * Returns the channel with that name, the same one for each spelling. Options replace those of
   * an earlier call. `since` is a position that the server has rendered into the page
   * (`Server.Position`): the events after it are replayed.
   */
  channel<C = Events>(name: string, options?: ChannelOptions & { since?: string }): Channel<C>;
  /** Connects, also after `closed`, and immediately if an attempt is planned. */
  connect(): this;
  /** Disconnects, and does not reconnect until `connect()` is called. */
  disconnect(): this;
  /**
   * Sends a command, and resolves with the answer: the result of a typed command, or the data
   * of the first direct message of any other command. It rejects with a PushyError; a caller
   * who does not wait for the answer need not catch it. If the caller does not wait and
   * `pushy:error` has no listener, an error of the server is written to the console once.
   */
  exec<T = any>(name: string, data?: unknown, options?: ExecOptions): Promise<T>;
  /**
   * Notifies the server when the user becomes idle or active, on this and later connections. The user is idle
   * while the page is hidden, or after `after` milliseconds without input, 60,000 by default. Members have it as
   * `idle`. A change is sent at most every 10 s. Returns a function that ends this (more.js).
   */
  idle(options?: { after?: number }): () => void;
}

export default Pushy;

declare global {
  interface Window {
    /** The global that the classic script defines. */
    Pushy: typeof Pushy;
  }
}
