import type {
  Channel, ChannelEvents, ChannelOptions, Emitter, Events, Member, Message, Pushy, PushyEvents, State, Token,
} from "./pushy.cjs";

/** A store, as Svelte's store contract and svelte/store have it. */
export interface Readable<T> {
  subscribe(run: (value: T) => void): () => void;
}

/** The value of `connection`. */
export interface Connection {
  readonly state: State;
  readonly connected: boolean;
  /** The time of the next attempt, in Unix milliseconds, while `waiting`. */
  readonly retryAt?: number;
  /** The client's name for the transport that last connected. */
  readonly transport?: string;
  readonly socketId?: string;
}

/** The value of `channel`. */
export interface Subscription<C = Channel> {
  readonly channel: C;
  /** False until the subscription has started, and while the connection is lost. */
  readonly subscribed: boolean;
  /** Why the server, or the auth endpoint, has refused the subscription. `channel.subscribe()` tries again. */
  readonly error?: string;
}

/** What `channel` returns: a store of the subscription, and the channel itself. */
export interface Room<E = Events> extends Readable<Subscription<Channel<E>>> {
  /** The channel, for its methods, such as `send`. */
  readonly channel: Channel<E>;
}

/** Options of `channel`. */
export interface RoomOptions extends ChannelOptions {
  /** A position that the server has rendered into the page: the events after it are replayed. */
  since?: string;
  /** A token that the server has rendered into the page; see `Channel.subscribe`. */
  token?: Token;
}

/** The value of `presence`. */
export interface Presence<D = {}> {
  /** The members in joining order: a new array after each change. */
  readonly members: readonly (Member & D)[];
  /** The number of members, also where the option `presence` is "count". */
  readonly count: number;
  /** This client's own member. It remains while the connection is lost, as the members do. */
  readonly me?: Member & D;
}

/** A store of the state of the connection; `idle` on a server that renders pages. */
export function connection(pushy: Pushy<any>): Readable<Connection>;

/**
 * A store of a subscription. The page is subscribed to the channel while a component uses this store, or one of
 * `presence` or `event` that was made from it; all stores of a channel share the subscription. It outlives a component
 * that another one replaces in the same task, and ends then even if the page itself has called `channel.subscribe()`.
 * On a server that renders pages nothing is subscribed.
 */
export function channel<E = Events>(pushy: Pushy<any>, name: string, options?: RoomOptions): Room<E>;

/**
 * A store of the members of a channel. They are unchanged while the connection is lost. The presence data can be typed:
 * `presence<{ name: string }>(room)`.
 */
export function presence<D = {}>(room: Room<any>): Readable<Presence<D>>;

/** A store of the data of the last event with that name; before the first one it has the value initial. */
export function event<E, K extends Exclude<keyof E, keyof ChannelEvents> & string>(
  room: Room<E>, name: K,
): Readable<E[K] | undefined>;
export function event<E, K extends Exclude<keyof E, keyof ChannelEvents> & string>(
  room: Room<E>, name: K, initial: E[K],
): Readable<E[K]>;

/**
 * Calls listener for each event with that name. It returns a function that ends this, for `onMount` and `$effect`:
 * `$effect(() => on(room, "said", (line) => lines.push(line)))`. It does not subscribe: a store does.
 */
export function on<K extends keyof ChannelEvents>(
  room: Room<any> | Channel<any>, event: K, listener: (...args: ChannelEvents[K]) => void,
): () => void;
export function on<E, K extends Exclude<keyof E, keyof ChannelEvents> & string>(
  room: Room<E> | Channel<E>, event: K, listener: (data: E[K], message: Message) => void,
): () => void;
export function on<K extends keyof PushyEvents>(
  pushy: Pushy<any>, event: K, listener: (...args: PushyEvents[K]) => void,
): () => void;
export function on<E, K extends Exclude<keyof E, keyof PushyEvents> & string>(
  pushy: Pushy<E>, event: K, listener: (data: E[K], message: Message) => void,
): () => void;
export function on<E, K extends keyof E & string>(
  events: Emitter<E>, event: K, listener: (data: E[K], message: Message) => void,
): () => void;
