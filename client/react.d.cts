import type {
  Channel, ChannelEvents, ChannelOptions, Emitter, Events, Member, Message, Pushy, PushyEvents, State, Token,
} from "./pushy.cjs";

/** What `useConnection` returns. */
export interface Connection {
  readonly state: State;
  readonly connected: boolean;
  /** The time of the next attempt, in Unix milliseconds, while `waiting`. */
  readonly retryAt?: number;
  /** The client's name for the transport that last connected. */
  readonly transport?: string;
  readonly socketId?: string;
}

/** What `useChannel` returns. */
export interface Subscription<C = Channel> {
  /** The channel, for the other hooks and for its methods, such as `send`. It is the same object in each render. */
  readonly channel: C;
  /** False until the subscription has started, and while the connection is lost. */
  readonly subscribed: boolean;
  /** Why the server, or the auth endpoint, has refused the subscription. `channel.subscribe()` tries again. */
  readonly error?: string;
}

/** Options of `useChannel`. */
export interface UseChannelOptions extends ChannelOptions {
  /** A position that the server has rendered into the page: the events after it are replayed. */
  since?: string;
  /** A token that the server has rendered into the page; see `Channel.subscribe`. */
  token?: Token;
}

/** What `usePresence` returns. */
export interface Presence<D = {}> {
  /** The members in joining order: a new array after each change. */
  readonly members: readonly (Member & D)[];
  /** The number of members, also where the option `presence` is "count". */
  readonly count: number;
  /** This client's own member. It remains while the connection is lost, as the members do. */
  readonly me?: Member & D;
}

/**
 * Returns the state of the connection, and renders the component again after each change. On a server that renders
 * pages it is `idle`. The client connects with the first subscription, command or `connect()`.
 */
export function useConnection(pushy: Pushy<any>): Connection;

/**
 * Subscribes to a channel while at least one component that uses it is mounted. Components of one page share the
 * subscription, and it outlives a component that another one replaces in the same task, so StrictMode and hot reload
 * subscribe once. After that, it ends even if the page itself has called `channel.subscribe()`.
 *
 * Without a name nothing is subscribed and `channel` is undefined, for components that do not know the name yet. The
 * options are those of the component that begins the subscription; changes take effect with the next one. On a server
 * that renders pages nothing is subscribed.
 */
export function useChannel<E = Events>(
  pushy: Pushy<any>, name: string, options?: UseChannelOptions,
): Subscription<Channel<E>>;
export function useChannel<E = Events>(
  pushy: Pushy<any>, name: string | null | undefined | false, options?: UseChannelOptions,
): Subscription<Channel<E> | undefined>;

/**
 * Returns the members of a channel to which a component subscribes with `useChannel`, and renders the component again
 * after each change. They are unchanged while the connection is lost. The presence data can be typed:
 * `usePresence<{ name: string }>(channel)`.
 */
export function usePresence<D = {}>(channel: Channel<any> | undefined): Presence<D>;

/**
 * Calls listener for each event with that name, as `on` does, while the component is mounted: always the listener of
 * the last render, so it needs no `useCallback`. It takes a channel, a Pushy, or the `events` of either, and does not
 * subscribe: `useChannel` does. A source that is undefined has no events.
 */
export function useEvent<K extends keyof ChannelEvents>(
  channel: Channel<any> | undefined, event: K, listener: (...args: ChannelEvents[K]) => void,
): void;
export function useEvent<E, K extends Exclude<keyof E, keyof ChannelEvents> & string>(
  channel: Channel<E> | undefined, event: K, listener: (data: E[K], message: Message) => void,
): void;
export function useEvent<K extends keyof PushyEvents>(
  pushy: Pushy<any>, event: K, listener: (...args: PushyEvents[K]) => void,
): void;
export function useEvent<E, K extends Exclude<keyof E, keyof PushyEvents> & string>(
  pushy: Pushy<E>, event: K, listener: (data: E[K], message: Message) => void,
): void;
export function useEvent<E, K extends keyof E & string>(
  events: Emitter<E> | undefined, event: K, listener: (data: E[K], message: Message) => void,
): void;
