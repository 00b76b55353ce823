/** A member of a channel's presence list: what it sent along, and what the server adds. */
export interface Member {
  /** New for every subscription. */
  memberId: string;
  /** Since when, in Unix milliseconds. */
  subscribed: number;
  idle: boolean;
  [name: string]: unknown;
}

/** What lets a client into a private channel, as the auth endpoint answers it. */
export interface Token {
  auth?: string;
  /** What the other members see. */
  data?: unknown;
}

/**
 * Gives the token for a channel (in lower case) and this connection's socketId.
 * To refuse, throw something with a `status` as in HTTP, and a `body` if there is
 * one. A status from 400 to 499 is final, anything else is tried again.
 */
export type Authorize = (channel: string, socketId: string) => Token | Promise<Token>;

/** A failed authorization. */
export interface AuthError {
  channel: string;
  /** The HTTP status, 0 if there was no answer, 2xx if the answer was not JSON. */
  status: number;
  body: string;
  /** When it is tried again, in Unix milliseconds; undefined if it is not. */
  retryAt?: number;
}

/**
 * - `idle`: nothing has asked for a connection yet, or there is no page to which a relative URL could belong
 * - `connecting`: the transports are being tried
 * - `connected`
 * - `waiting`: for the next try, at `retryAt`
 * - `closed`: by `disconnect()`, or by a server that refused this client for good
 */
export type State = "idle" | "connecting" | "connected" | "waiting" | "closed";

export interface StateEvent {
  state: State;
  /** When the next try is, in Unix milliseconds, while `waiting`. */
  retryAt?: number;
  /** The transport that last got through. */
  transport?: string;
  /**
   * Why it is `waiting` or `closed`: the close code, 1006 if there was none, 4001 if the page
   * was hidden to be kept for the back button; 401 or 403 if the server refused the connection
   * with this HTTP status, which is final: `connect()` tries again, after a login for example.
   */
  code?: number;
  reason?: string;
  /** The beginning of the answer that refused the connection. */
  body?: string;
}

/** Where the server is: a string, a URL object, or a function that is called before each try. */
export type Url = string | { readonly href: string } | (() => string | Promise<string>);

export type Transport = "websocket" | "streaming" | "polling";

/** HTTP headers: an object, pairs, or the browser's Headers. */
export type HeaderList = Record<string, string> | Iterable<readonly [string, string] | string[]>;

export interface Options {
  /**
   * The auth endpoint, which gives the tokens for private channels: a URL, to which
   * `channel` and `connection_id` are posted as a form, or a function. Without one the
   * server is asked first whether it wants a token, and the endpoint is "auth" under the
   * server's prefix: "/pushy/auth" for "/pushy", "https://rt.example/live/auth" for
   * "https://rt.example/live".
   */
  auth?: string | Authorize;
  /** Writes each step and each message to the console, without the tokens that are sent. */
  debug?: boolean;
  /**
   * Tried in this order; all three by default. An empty list, or one with another name, is a
   * TypeError. The one that gets through is remembered for an hour. While it is not the first,
   * those before it are tried in the background, after 5 s, 10 s and so on up to 10 minutes,
   * and the next connection uses what gets through. The server sees each of these tries as a
   * connection that is closed again at once.
   */
  transports?: Transport[];
  /** The page's own sockjs-client, used instead of our transports. */
  SockJS?: new (url: string) => object;
  /** In node before 22: that of the `ws` package. The global one by default. */
  WebSocket?: new (url: string) => object;
  /** The global one by default. */
  fetch?: (url: any, options?: any) => Promise<any>;
  /** Sent to the auth endpoint. */
  headers?: HeaderList | (() => HeaderList | Promise<HeaderList>);
  /** What happens to a command while there is no connection. "wait" by default, for at most 100 of them. */
  offline?: "wait" | "reject";
  /** Milliseconds that the answer to a command may take; 30,000 by default, 0 for as long as the connection. */
  timeout?: number;
  /**
   * Bounds of the random pause before a try, in milliseconds; 500 and 20,000 by default. The
   * time that a Retry-After header asks for (at most an hour) is added.
   */
  minDelay?: number;
  maxDelay?: number;
}

export interface ExecOptions {
  offline?: "wait" | "reject";
  timeout?: number;
}

/**
 * What rejects a command. The code is the server's ("200" for an unknown
 * command, for example), or one of
 * - `unknown`: the connection was lost before the answer; the command may have been carried out, and is not sent again
 * - `timeout`: no answer came; many commands have none
 * - `too-large`: the server refused the message for its size; it was not carried out, and is not sent again
 * - `offline`, `closed`: it was not sent, because there was no connection
 * - `full`: it was not sent, because too many are queued already
 */
export class PushyError extends Error {
  constructor(message: string, code: string);
  code: string;
}

/** An event of a channel, as `for await` gives it. */
export interface ChannelEvent {
  event: string;
  data: any;
  /** Whether it was published; otherwise it is one of the client's own, such as `subscribe`. */
  published: boolean;
}

/** The data of a page's own events, by their names. */
export type Events = Record<string, any>;

/** Listeners by event. A listener that throws does not keep the event from the others. */
export interface Emitter<E = Events> {
  /** Calls listener at each event of that name. */
  bind<K extends keyof E & string>(event: K, listener: (data: E[K]) => void): this;
  /** Undoes one bind, or all of that event. */
  unbind<K extends keyof E & string>(event: K, listener?: (data: E[K]) => void): this;
  /** bind */
  on<K extends keyof E & string>(event: K, listener: (data: E[K]) => void): this;
  /** unbind */
  off<K extends keyof E & string>(event: K, listener?: (data: E[K]) => void): this;
}

/** The client's own events of a channel, and what their listeners get. */
export interface ChannelEvents {
  /** Subscribed, for the first time or again; with all members if there is presence. */
  subscribe: [members?: Member[]];
  /** No longer subscribed: unsubscribed, removed by the server, or disconnected. */
  unsubscribe: [reason?: string];
  /** Refused for good; call `subscribe()` to try again. */
  "subscribe-error": [reason: string, detail?: AuthError | PushyError];
  /**
   * The auth endpoint gave no token. It is tried again while `retryAt` is set; after ten
   * failures one after another the channel is given up.
   */
  "auth-error": [error: AuthError];
  "pushy:member-added": [member: Member];
  "pushy:member-quit": [member: Member];
  /** Presence began; here are all members. */
  "pushy:presence-sync": [members: Member[]];
  /** Events may have been missed here: fetch the current state. */
  "pushy:resync": [];
}

/** The client's own events of a Pushy. */
export interface PushyEvents {
  connect: [pushy: Pushy<any>];
  disconnect: [pushy: Pushy<any>, why: { code: number; reason: string }];
  state: [state: StateEvent];
  "auth-error": [error: AuthError];
  /** An error from the server, those that reject an `exec` among them. */
  "pushy:error": [error: { message: string; code: string }];
  /** Each message from the server, as it came. */
  "internal-msg": [text: string];
}

/** Listeners for the client's own events, and for those that the server sends. */
interface Source<Own extends { [K in keyof Own]: any[] }, E> {
  /**
   * Calls listener at each event of that name. The names of the client's own events
   * always mean these: nothing that is published can call their listeners. A published
   * event that has such a name is received with `events`.
   */
  bind<K extends keyof Own>(event: K, listener: (...args: Own[K]) => void): this;
  bind<K extends Exclude<keyof E, keyof Own> & string>(event: K, listener: (data: E[K]) => void): this;
  /** Undoes one bind, or all of that event. */
  unbind(event: (keyof Own | keyof E) & string, listener?: (...args: any[]) => void): this;
  /** bind */
  on<K extends keyof Own>(event: K, listener: (...args: Own[K]) => void): this;
  on<K extends Exclude<keyof E, keyof Own> & string>(event: K, listener: (data: E[K]) => void): this;
  /** unbind */
  off(event: (keyof Own | keyof E) & string, listener?: (...args: any[]) => void): this;
  /**
   * Listeners for what the server sends, whatever its name: `channel.events.on("subscribe", …)`
   * receives an event that somebody published as "subscribe".
   */
  readonly events: Emitter<E>;
}

/**
 * A channel. `for await (const { event, data } of channel)` gives all its
 * events, across reconnects, until `unsubscribe()`; it fails when 10,000 are queued.
 * The data of its events can be typed: `pushy.channel<{ news: { title: string } }>("lobby")`.
 */
export interface Channel<E = Events> extends Source<ChannelEvents, E> {
  /** As it was first spelled; names are case-insensitive. */
  readonly name: string;
  readonly subscribed: boolean;
  /** Our own in the presence list, while subscribed. */
  readonly memberId: string | undefined;
  /**
   * The members by memberId, in joining order: a new Map after each change. It is
   * empty in channels without presence; while the connection is lost it stays as it was.
   */
  readonly members: Map<string, Member>;
  /**
   * Subscribes, now or when there is a connection, and again after each
   * reconnect, until `unsubscribe()`, a refusal, or the server removes us.
   * Calling it again starts anew after a refusal, and at once if a retry is
   * planned. A given token is used for the next subscription that is sent, on this
   * connection; later ones ask the auth endpoint.
   *
   * A refusal to which nobody listens, by `subscribe-error`, `auth-error` or `for await`,
   * is written to the console once.
   */
  subscribe(token?: Token): this;
  unsubscribe(): this;
  [Symbol.asyncIterator](): AsyncGenerator<ChannelEvent, void, void>;
}

/** The data of the direct messages that the server sends can be typed: `new Pushy<{ moved: Move }>()`. */
export interface Pushy<E = Events> extends Source<PushyEvents, E> {}

export class Pushy<E = Events> {
  /**
   * Nothing is connected before the first `connect()`, `subscribe()` or `exec()`.
   *
   * After the connection is lost the client reconnects, after a random pause that grows with
   * each failure, and subscribes to its channels again. It does not after `disconnect()`,
   * close codes 1002, 1003, 1007, 1008, 1010 and 3500 to 3999, or an HTTP answer 401 or 403;
   * `state` is then "closed". When the browser keeps the page for the back button, the client
   * disconnects, and reconnects when the page is shown again.
   *
   * @param url The server: its origin (with pushy under /pushy), its prefix or
   *   its socket path ("/pushy/socket"), relative to the document's base URL; "/pushy" by
   *   default. A query is sent with every request. A function is called before each
   *   try; if it fails, so does the try. Throws TypeError if it is not a URL of http, https,
   *   ws or wss, or has a user name or password. Where there is no page, as on a server that
   *   renders one, a relative URL is accepted and nothing is connected.
   * @param options See there. The auth endpoint may stand before them instead:
   *   `new Pushy(url, "/auth", options)`.
   */
  constructor(url?: Url, options?: Options);
  constructor(url?: Url, authHandler?: string | Authorize, options?: Options);
  readonly url: Url;
  readonly state: State;
  readonly connected: boolean;
  readonly connecting: boolean;
  /** When the next try is, in Unix milliseconds, while `waiting`. */
  readonly retryAt: number | undefined;
  /** This connection's, new for each. */
  readonly socketId: string | undefined;
  /** The server's name for the connection's transport. */
  readonly protocol: string | undefined;
  /** Our name for the transport that last got through. */
  readonly transport: string | undefined;
  /** By name in lower case. */
  readonly channels: Map<string, Channel>;

  /** The channel of that name, the same for each spelling. */
  channel<C = Events>(name: string): Channel<C>;
  /** Connects, also after `closed`; at once if a try is planned. */
  connect(): this;
  /** Disconnects for good. */
  disconnect(): this;
  /**
   * Sends a command, and resolves with the answer: of a typed command what it
   * returned, of any other the data of its first direct message. Rejects with a
   * PushyError; a caller who does not wait need not catch it. If the caller does not
   * wait and nobody listens to `pushy:error`, an error of the server is written to the
   * console once.
   */
  exec<T = any>(name: string, data?: unknown, options?: ExecOptions): Promise<T>;
}

export default Pushy;

declare global {
  interface Window {
    /** What the classic script defines. */
    Pushy: typeof Pushy;
  }
}
