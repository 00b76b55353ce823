// What a page can do without: it is in pushy.mjs and pushy.cjs, and a page that uses pushy.js
// can load more.js after it. It extends the classes, whose private names it knows.

import { seek } from "./better.js";
import { recall, remember } from "./memory.js";

/** A `for await` ends with an error if more events than this are queued for it. */
const mostWaiting = 10_000;

const idleTime = 60_000; // milliseconds without input after which the user is idle
const idlePause = 10_000; // between two commands that say so: the server accepts no more

const month = 30 * 24 * 3_600_000; // for which a network that breaks compressed messages is remembered

/**
 * The readers of a channel's events.
 * @typedef {(event?: string, data?: any, published?: boolean, offset?: number, from?: string) => void} Reader
 */

/** @param {typeof import("./pushy.js").Pushy} Client */
export function extend(Client) {
  /** @type {any} */
  const pushy = Client.prototype;
  const channel = Object.getPrototypeOf(new Client().channel("more"));
  const { _connected, _end, _set, _send, _receive, _open, _authorize } = pushy;
  const { _emit, _publish, _heard, _change, unsubscribe } = channel;
  const links = Client._links;
  let remembered = false;
  try {
    remembered = Date.now() - +localStorage["pushy:deflate"] < month;
    if (remembered) links._unreadable = 2;
  } catch {}

  Object.assign(pushy, {
    /** @this {any} @param {any} at */
    _order(at) {
      const transports = this._transports, known = transports.indexOf(recall(at) ?? "");
      if (this.transport && this._failures < 3 && (known > 0 || this.transport === transports[0])) return [this.transport];
      return known > 0 && !this._failures ? transports.slice(known) : transports;
    },

    /** @this {any} @param {any} data */
    _connected(data) {
      const { transport, _at, _how, _transports } = this, known = recall(_at);
      if (known ? known !== transport : transport !== _transports[0]) remember(_at, transport);
      this._unseek = seek(links, _at, _how, _transports.slice(0, _transports.indexOf(transport)), (name) => {
        this._log(name, "works");
        remember(_at, name);
      });
      _connected.call(this, data);
    },

    /** @this {any} @param {any[]} args */
    _end(...args) {
      this._unseek?.();
      if (links._unreadable > 1 && !remembered) {
        remembered = true;
        try {
          localStorage["pushy:deflate"] = Date.now();
        } catch {}
      }
      this._log(...args.slice(0, 2));
      _end.apply(this, args);
    },

    /** @this {any} @param {any[]} what */
    _log(...what) {
      if (this._how.debug) console.log("pushy:", ...what);
    },

    /** @this {any} @param {string} state @param {any} [detail] */
    _set(state, detail) {
      this._log(state, detail ?? this.transport);
      _set.call(this, state, detail);
    },

    /** @this {any} @param {string} text */
    _send(text) {
      this._log("sends", text.replace(/("(?:auth|key)":")(\\.|[^"])+/g, "$1…"));
      _send.call(this, text);
    },

    /** @this {any} @param {any} message @param {string} text */
    _receive(message, text) {
      this._log("receives", text.replace(/("key":")(\\.|[^"])+/g, "$1…"));
      return _receive.call(this, message, text);
    },

    /** @this {any} @param {any} at @param {string[]} names @param {number} [index] */
    _open(at, names, index = 0) {
      this._log("tries", names[index], at("").split("?")[0]);
      _open.call(this, at, names, index);
    },

    /** @this {any} @param {any} channel */
    _authorize(channel) {
      this._log("needs a token", channel._key);
      return _authorize.call(this, channel);
    },

    /** @this {any} */
    idle({ after = idleTime } = {}) {
      let idle = false, told = false, last = 0;
      /** @type {any} */
      let timer;
      /** @type {any} */
      let pause;
      // The server knows a connection as not idle until it is told otherwise.
      const tell = () => {
        clearTimeout(pause);
        const wait = last + idlePause - Date.now();
        if (idle === told || !this.connected) return;
        if (wait > 0) return (pause = setTimeout(tell, wait));
        told = idle;
        last = Date.now();
        this._request("pushy:idle", { idle }, { _quiet: true, _timeout: 0, _done() {} }); // an older server does not know it
      };
      const set = (/** @type {boolean} */ now) => {
        idle = now;
        tell();
      };
      const seen = () => {
        clearTimeout(timer);
        timer = setTimeout(set, after, true);
        set(!!globalThis.document?.hidden);
      };
      const begun = () => {
        told = false;
        last = 0;
        tell();
      };
      const aborter = new AbortController(), { signal } = aborter;
      for (const event of ["pointerdown", "pointermove", "keydown", "wheel", "touchstart", "scroll", "focus"]) {
        globalThis.addEventListener?.(event, seen, { signal, passive: true, capture: true });
      }
      globalThis.document?.addEventListener?.("visibilitychange", seen, { signal });
      this.on("connect", begun);
      seen();
      return () => {
        aborter.abort();
        clearTimeout(timer);
        this.off("connect", begun);
        set(false);
      };
    },
  });

  Object.assign(channel, {
    /** @this {any} @param {string} event @param {any[]} args */
    _emit(event, ...args) {
      _emit.call(this, event, ...args);
      if (this._own.test(event)) for (const read of this._readers ?? []) read(event, args[0]);
    },

    /** @this {any} @param {string} event @param {any} data @param {any} message */
    _publish(event, data, message) {
      _publish.call(this, event, data, message);
      for (const read of this._readers ?? []) read(event, data, true, message.offset, message.from);
    },

    /** @this {any} @param {any} changes @param {boolean} [told] */
    _change(changes, told) {
      const { count, _how } = this;
      _change.call(this, changes, told);
      // In the other modes the members' own events say so.
      if (_how.presence === "count" && this.count !== count) this._emit("pushy:count", this.count);
    },

    /** @this {any} @param {string} event */
    _heard(event) {
      return _heard.call(this, event) || this._readers?.size;
    },

    /** @this {any} */
    unsubscribe() {
      unsubscribe.call(this);
      for (const read of this._readers ?? []) read();
      return this;
    },

    /** @this {any} */
    async *[Symbol.asyncIterator]() {
      /** @type {import("../pushy.d.ts").ChannelEvent[]} */
      const waiting = [];
      let ended = false, wake = () => {};
      /** @type {Reader} */
      const read = (event, data, published = false, offset = undefined, from = undefined) => {
        if (event === undefined) ended = true;
        else if (waiting.length <= mostWaiting) waiting.push({ event, data, published, offset, ...(from && { from }) });
        wake();
      };
      this._readers ??= new Set();
      this._readers.add(read);
      try {
        for (;;) {
          if (waiting.length > mostWaiting) throw new Error(`${mostWaiting} events of ${this.name} are queued`);
          const next = waiting.shift();
          if (next) yield next;
          else if (ended) return;
          else await new Promise((resolve) => (wake = /** @type {() => void} */ (resolve)));
        }
      } finally {
        this._readers.delete(read);
      }
    },

    /** Loads the next members of a list. @this {any} @param {string} after */
    _page(after) {
      this._pushy._request("pushy:members", { channel: this.name, after, limit: 500 }, {
        _timeout: 0,
        // It must take effect before the next message is read, which can be a change of these members.
        _done: (/** @type {any} */ error, /** @type {any} */ data) => {
          if (error) return;
          this._change({ add: data.list });
          if (data.next) return this._page(data.next);
          this._revision = data.revision;
          this._emit("pushy:presence-sync", this._all());
        },
      });
    },

    /** @this {any} @param {object} [query] */
    history(query) {
      return this._pushy.exec("pushy:history", { ...query, channel: this.name });
    },

    /** @this {any} @param {string[]} users */
    async find(users) {
      return (await this._pushy.exec("pushy:members", { channel: this.name, users })).users;
    },

    /** @this {any} @param {object | null} state */
    update(state) {
      return this._pushy.exec("pushy:update", { channel: this.name, state });
    },
  });
}
