// What the bindings for frameworks share: subscriptions that several components have together, and
// values that stay the same object until one of their fields changes.

/** @typedef {import("../pushy.d.ts").Pushy<any>} Pushy */
/** @typedef {import("../pushy.d.ts").Channel<any> & {[uses]?: Uses}} Channel */
/** @typedef {import("../pushy.d.ts").Token} Token */
/** @typedef {import("../pushy.d.ts").ChannelOptions & {token?: Token, since?: string}} Options */

/**
 * The components that use a channel.
 * @typedef {object} Uses
 * @property {number} count
 * @property {any} [timer] of the end of the subscription
 * @property {string} [error] why the server has refused the subscription
 * @property {(reason: string) => void} refused
 * @property {() => void} allowed
 */

/**
 * @template T
 * @typedef {object} Store
 * @property {T} empty the value on a server that renders pages
 * @property {() => T} get
 * @property {(listener: () => void) => () => void} on
 */

// All copies of this module, such as those of import, of require and of another framework, count together.
const uses = Symbol.for("pushy-client.uses");

/** Whether this is a server that renders pages: nothing subscribes there. */
export const rendering = () => typeof window === "undefined";

/**
 * Returns the channel. A server that renders pages would keep one for each name that a request contains.
 * @param {Pushy} pushy
 * @param {string} name
 * @returns {Channel}
 */
function find(pushy, name) {
  const { channels } = pushy, key = name.toLowerCase(), known = channels.has(key), channel = pushy.channel(name);
  if (!known && rendering()) channels.delete(key);
  return channel;
}

/**
 * Subscribes for one more component. Returns a function that ends this.
 * @param {Pushy} pushy
 * @param {Channel} channel
 * @param {Options} [options]
 */
function use(pushy, channel, options) {
  /** @type {Uses} */
  const used = (channel[uses] ??= {
    count: 0,
    refused(reason) {
      used.error = reason;
      console.warn(`pushy: ${channel.name}: ${reason}`); // the client does not, since this is a listener
    },
    allowed() {
      used.error = undefined;
    },
  });
  if (!used.count++) {
    if (used.timer) clearTimeout(used.timer);
    else {
      const { token, ...rest } = options ?? {};
      if (options) pushy.channel(channel.name, rest);
      channel.on("subscribe", used.allowed).on("subscribe-error", used.refused).subscribe(token);
    }
    used.timer = undefined;
  }
  return () => {
    if (--used.count) return;
    // A component that is replaced, mounted twice by StrictMode or loaded anew returns in the same task.
    used.timer = setTimeout(() => {
      used.timer = undefined;
      used.allowed(); // the next component does not begin with an old error
      channel.off("subscribe", used.allowed).off("subscribe-error", used.refused).unsubscribe();
    }, 0);
  };
}

/**
 * @template {object} T
 * @param {T} empty
 * @param {any} [source]
 * @param {string} [events] after which the value can be another one
 * @param {() => T} [read]
 * @param {() => () => void} [begin] is called for each listener, and returns a function that is called at its end
 * @returns {Store<T>}
 */
function store(empty, source, events = "", read = () => empty, begin) {
  const names = events.split(" ");
  let value = /** @type {any} */ (empty);
  return {
    empty,
    get() {
      const now = /** @type {any} */ (read());
      if (Object.keys(now).some((name) => now[name] !== value[name])) value = now;
      return value;
    },
    on(listener) {
      const end = begin?.();
      for (const name of names) source?.on(name, listener);
      return () => {
        for (const name of names) source?.off(name, listener);
        end?.();
      };
    },
  };
}

/** @param {Pushy} pushy */
export const ofConnection = (pushy) => {
  const idle = /** @type {any} */ ({ state: "idle", connected: false });
  return store(idle, pushy, "state", () => {
    const { state, connected, retryAt, transport, socketId } = pushy;
    return { state, connected, retryAt, transport, socketId };
  });
};

/** @param {Pushy} pushy @param {string | null | undefined | false} name @param {() => Options | undefined} options */
export function ofChannel(pushy, name, options) {
  if (!name) return store({ channel: undefined, subscribed: false, error: undefined });
  const channel = find(pushy, name);
  return store(
    { channel, subscribed: false, error: undefined }, channel, "subscribe unsubscribe subscribe-error",
    () => /** @type {any} */ ({ channel, subscribed: channel.subscribed, error: channel[uses]?.error }),
    () => use(pushy, channel, options()),
  );
}

/** @param {Channel | undefined} channel @param {() => () => void} [begin] */
export function ofPresence(channel, begin) {
  /** @type {Map<string, any>} */
  let members = new Map();
  /** @type {any[]} */
  let list = [];
  /** @type {any} */
  let id;
  return store(
    { members: list, count: 0, me: undefined }, channel,
    "subscribe unsubscribe pushy:presence-sync pushy:member-added pushy:member-quit pushy:member-updated pushy:count",
    channel && (() => {
      if (members !== channel.members) list = [...(members = channel.members).values()];
      id = channel.memberId ?? id; // while the connection is lost, too
      return { members: list, count: channel.count, me: members.get(id) };
    }),
    begin,
  );
}
