/** What a channel's presence list holds of each member: what it brought, and what the server says of it. */
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
 * To refuse, throw something with a `status` as in HTTP, and a `body` if there is one.
 */
export type Authorize = (channel: string, socketId: string) => Token | Promise<Token>;

/** A failed authorization. */
export interface AuthError {
  channel: string;
  /** The HTTP status, 0 if there was no answer. 2xx is one that was no JSON. */
  status: number;
  body: string;
  /** When it is tried again, in Unix milliseconds; undefined if it is not. */
  retryAt?: number;
}

/**
 * - `idle`: nothing has been asked for yet
 * - `connecting`: all transports are being tried
 * - `connected`
 * - `waiting`: for the next try, at `retryAt`
 * - `closed`: by `disconnect()`, or by a server that said not to come back
 */
export type State = "idle" | "connecting" | "connected" | "waiting" | "closed";

export interface StateEvent {
  state: State;
  /** When the next try is, in Unix milliseconds, while `waiting`. */
  retryAt?: number;
  /** The transport that last got through. */
  transport?: string;
  /** Why it is `waiting` or `closed`: a close code, 1006 for what had none. */
  code?: number;
  reason?: string;
}

/** Where the server is, or a function that is asked before each try. */
export type Url = string | (() => string | Promise<string>);

export type Transport = "websocket" | "streaming" | "polling";

export interface Options {
  /** Tried in this order; the one that gets through is remembered for an hour. All three by default. */
  transports?: Transport[];
  /** The page's own sockjs-client, used instead of our transports. */
  SockJS?: new (url: string) => object;
  /** In node before 22: that of the `ws` package. The global one by default. */
  WebSocket?: new (url: string) => object;
  /** The global one by default. */
  fetch?: typeof fetch;
  /** Sent to the auth endpoint. */
  headers?: HeadersInit | (() => HeadersInit | Promise<HeadersInit>);
  /** What becomes of a command while there is no connection. "wait" by default, for at most 100 of them. */
  offline?: "wait" | "reject";
  /** Milliseconds that the answer to a command may take; 30,000 by default, 0 for as long as the connection. */
  timeout?: number;
  /** Bounds of the random pause before a try, in milliseconds; 500 and 20,000 by default. */
  minDelay?: number;
  maxDelay?: number;
}

export interface ExecOptions {
  offline?: "wait" | "reject";
  timeout?: number;
}

/**
 * What rejects a command. The code is the server's ("200" for an unknown
 * command, say), or one of
 * - `unknown`: the connection was lost before the answer; it may have been done, and is not sent again
 * - `timeout`: no answer came; many commands have none
 * - `offline`, `closed`: it was not sent, there being no connection
 * - `full`: it was not sent, too many wait already
 */
export class PushyError extends Error {
  constructor(message: string, code: string);
  code: string;
}

/** An event of a channel, as `for await` gives it. */
export interface ChannelEvent {
  event: string;
  data: any;
}

declare class Emitter {
  /** Calls listener at each event of that name. */
  bind(event: string, listener: (...args: any[]) => void): this;
  /** Undoes one bind, or all of that event. */
  unbind(event: string, listener?: (...args: any[]) => void): this;
  /** bind */
  on(event: string, listener: (...args: any[]) => void): this;
  /** unbind */
  off(event: string, listener?: (...args: any[]) => void): this;
}

/**
 * A channel. `for await (const { event, data } of channel)` gives all its
 * events, across reconnects, until `unsubscribe()`; it fails when 10,000 wait.
 */
export interface Channel extends Emitter {
  /** As it was first asked for; names match without case. */
  readonly name: string;
  readonly subscribed: boolean;
  /** Our own in the presence list, while subscribed. */
  readonly memberId: string | undefined;
  /**
   * Who is here, by memberId, in joining order: a new Map after each change. It
   * is empty in channels without presence; while the connection is lost it is as
   * it was.
   */
  readonly members: Map<string, Member>;
  /**
   * Subscribes, now or when there is a connection, and again after each
   * reconnect, until `unsubscribe()`, a refusal, or the server takes us out.
   * Calling it again starts anew after a refusal, and at once where a retry
   * waits. A token given holds for this connection.
   */
  subscribe(token?: Token): this;
  unsubscribe(): this;
  [Symbol.asyncIterator](): AsyncGenerator<ChannelEvent, void, void>;

  /** Subscribed, for the first time or again; with all members if there is presence. */
  bind(event: "subscribe", listener: (members?: Member[]) => void): this;
  /** No longer subscribed: unsubscribed, taken out by the server, or disconnected. */
  bind(event: "unsubscribe", listener: (reason?: string) => void): this;
  /** Refused for good; call `subscribe()` to try again. */
  bind(event: "subscribe-error", listener: (reason: string, detail?: AuthError | PushyError) => void): this;
  /** No token was to be had. Repeated while it is tried again. */
  bind(event: "auth-error", listener: (error: AuthError) => void): this;
  bind(event: "pushy:member-added" | "pushy:member-quit", listener: (member: Member) => void): this;
  /** Presence began; here is everyone. */
  bind(event: "pushy:presence-sync", listener: (members: Member[]) => void): this;
  /** Events may have been missed here: fetch what matters anew. */
  bind(event: "pushy:resync", listener: () => void): this;
  bind(event: string, listener: (...args: any[]) => void): this;
}

export class Pushy extends Emitter {
  /**
   * Nothing is connected before the first `connect()`, `subscribe()` or `exec()`.
   *
   * @param url The server: its origin (with pushy under /pushy), its prefix or
   *   its socket path ("/pushy/socket"), relative to the page; "/pushy" by
   *   default. A query goes with every request. A function is asked before each
   *   try; if it fails, so does the try. Throws TypeError if it is no URL.
   * @param authHandler Who gives the tokens for private channels: a URL, to
   *   which `channel` and `connection_id` are posted as a form, or a function.
   *   Without one the server is asked first whether it wants a token, and
   *   "/pushy/auth" is who gives them.
   */
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
  /** Ours, of the transport that last got through. */
  readonly transport: string | undefined;
  /** By name in lower case. */
  readonly channels: Map<string, Channel>;

  /** The channel of that name, the same for each spelling. */
  channel(name: string): Channel;
  /** Connects, also after `closed`; at once where a try waits. */
  connect(): this;
  /** Disconnects for good. */
  disconnect(): this;
  /**
   * Sends a command, and resolves with the answer: of a typed command what it
   * returned, of any other the data of its first direct message. Rejects with a
   * PushyError; a caller who does not wait need not catch it.
   */
  exec<T = any>(name: string, data?: unknown, options?: ExecOptions): Promise<T>;

  bind(event: "connect", listener: (pushy: Pushy) => void): this;
  bind(event: "disconnect", listener: (pushy: Pushy, why: { code: number; reason: string }) => void): this;
  bind(event: "state", listener: (state: StateEvent) => void): this;
  bind(event: "auth-error", listener: (error: AuthError) => void): this;
  /** An error from the server, those that reject an `exec` among them. */
  bind(event: "pushy:error", listener: (error: { message: string; code: string }) => void): this;
  /** Any other direct message from the server. */
  bind(event: string, listener: (...args: any[]) => void): this;
}

export default Pushy;

declare global {
  interface Window {
    /** What the classic script leaves. */
    Pushy: typeof Pushy;
  }
}
