import { address } from "./address.js";
import { Channel } from "./channel.js";
import { Source } from "./emitter.js";
import { PushyError } from "./error.js";
import { kept } from "./keys.js";
import { links } from "./links.js";
import { busy, delay, isFinal, retryAfter } from "./retry.js";
import { asker } from "./token.js";
import { watch } from "./wake.js";

/** @typedef {import("../pushy.d.ts").Options} Options */
/** @typedef {import("../pushy.d.ts").Token} Token */
/** @typedef {import("../pushy.d.ts").ExecOptions} ExecOptions */
/** @typedef {import("./links.js").Link} Link */

/** @typedef {(path: string) => string} Address */

/**
 * A command that is not answered yet.
 * @typedef {object} Request
 * @property {(error?: PushyError, data?: any) => void} _done called once, before any later message is read
 * @property {any} [_size] the length of the message
 * @property {number} [_timeout] time limit of the answer in milliseconds, 0: until the connection ends
 * @property {any} [_timer]
 * @property {boolean} [_quiet] the page is not notified of an error
 */

const steady = 5000; // after a connection of this length, failures are counted from 0 again
const silence = 45_000; // milliseconds without a message, after which a command checks the connection
const patienceForAnswer = 5000; // milliseconds within which the server must answer that command
const patience = 3500; // milliseconds for a transport to connect; more after each failure
const longest = 15_000;
const mostWaiting = 100; // commands; a server accepts 200 at once
const cached = 4001; // the close code of a page that is kept for the back button

export class Pushy extends Source {
  static _links = links;
  /** @type {import("../pushy.d.ts").State} */
  state = "idle";
  /** @type {Map<string, Channel>} */
  channels = new Map();
  /** @type {string | undefined} */
  socketId;
  /** @type {string | undefined} */
  protocol;
  /** @type {string | undefined} */
  transport;
  /** @type {number | undefined} */
  retryAt;
  _failures = 0;
  _since = 0; // when the connection was made
  _alive = 0; // when the server last sent something
  /** What the server has said about returning. @type {any} */
  _said = {};
  _notBefore = 0; // when the server allows the next attempt
  _ids = 0;
  /** @type {Map<string, Request>} */
  _requests = new Map();
  /** @type {[string, any, Request][]} */
  _waiting = [];
  /** @type {Link | undefined} */
  _link;
  /** @type {any} */
  _timer;
  /** The attempt in progress; the result of an earlier one is ignored. @type {object | undefined} */
  _try;
  /** @type {(() => void) | undefined} */
  _unwatch;
  /** @type {object | undefined} */
  _probing;
  /** @type {Address | undefined} */
  _at;
  /** The ids of the last connections, for events that are not for the connection that published them. @type {string[]} */
  _was = [];
  /** The keys of this client's memberships, by channel. @type {Map<string, {id: string, key: string} | undefined>} */
  _keys = new Map();
  /** @type {Set<string>} */
  _warned = new Set();
  _ask = asker(this);
  _part = 0.75 + 0.15 * Math.random(); // of a token's life, after which it is renewed

  /**
   * @param {import("../pushy.d.ts").Url} [url]
   * @param {string | import("../pushy.d.ts").Authorize | Options} [authHandler]
   * @param {Options} [options]
   */
  constructor(url = "/pushy", authHandler, options = {}) {
    super(/^(pushy:|((dis)?connect|state|auth-error|internal-msg)$)/);
    this.url = url;
    this._how = options = {
      ...options,
      ...(typeof authHandler === "object" ? authHandler : authHandler && { auth: authHandler }),
    };
    /** @type {string[]} */
    this._transports = options.SockJS ? ["sockjs"] : options.transports ?? ["websocket", "streaming", "polling"];
    // Otherwise nothing would report a misspelled name.
    if (!this._transports[0] || this._transports.some((name) => !links[name])) {
      throw new TypeError(`pushy: no transports: ${this._transports}`);
    }
    if (typeof url !== "function") address(url);
  }

  get connected() {
    return this.state === "connected";
  }

  get connecting() {
    return this.state === "connecting";
  }

  /**
   * @param {string} name
   * @param {import("../pushy.d.ts").ChannelOptions & {since?: string}} [options]
   */
  channel(name, options) {
    const key = name.toLowerCase();
    let channel = this.channels.get(key);
    if (!channel) this.channels.set(key, (channel = new Channel(this, name)));
    if (options) {
      channel._how = options;
      if (options.since && !channel._known) {
        const [epoch, offset] = options.since.split(".");
        channel._place = { epoch, offset: +offset };
        channel._known = true;
      }
    }
    return channel;
  }

  connect() {
    // Without a page, as on a server that renders pages, a relative URL has no base.
    if (!this.connected && !this.connecting && (typeof this.url === "function" || address(this.url))) {
      this._unwatch ??= watch((why) => this._look(why));
      this._dial();
    }
    return this;
  }

  disconnect() {
    if (this.state === "closed") return this;
    // Over HTTP the server cannot distinguish the end of this connection from its loss.
    for (const channel of this.channels.values()) channel._leave();
    this._end(1000, "", {}, true);
    return this;
  }

  /**
   * @param {string} name
   * @param {any} [data]
   * @param {ExecOptions} [options]
   */
  exec(name, data, options = {}) {
    let awaited = false;
    /** @type {Promise<any>} */
    const promise = new Promise((resolve, reject) => {
      /** @type {Request} */
      const request = {
        _timeout: options.timeout ?? this._how.timeout ?? 30_000,
        _done: (error, data) => (error ? reject(error) : resolve(data)),
      };
      if (this.connected) this._request(name, data, request);
      else if (this.state === "closed") reject(unsent(name, "closed"));
      else if ((options.offline ?? this._how.offline) === "reject") reject(unsent(name, "offline"));
      else if (this._waiting.length >= mostWaiting) reject(new PushyError("Too many commands are queued", "full"));
      else this._waiting.push([name, data, request]);
      this._wake();
    });
    // A caller who ignores the answer can ignore the rejection as well. Many commands have no
    // answer, and every connection ends: only other errors are worth a warning.
    promise.catch((error) => queueMicrotask(() => {
      if (awaited || this._heard("pushy:error") || error.code === "timeout" || error.code === "unknown") return;
      this._warn(`${name}: ${error.message} (${error.code})`);
    }));
    const { then } = promise;
    return Object.assign(promise, {
      constructor: undefined, // so that await calls then, too
      /** @type {typeof then} */
      then(...listeners) {
        awaited = true;
        return /** @type {any} */ (then.apply(promise, listeners));
      },
    });
  }

  /** Writes an error without a listener to the console, once. @param {string} text */
  _warn(text) {
    if (this._warned.has(text) || this._warned.size > 99) return;
    this._warned.add(text);
    console.warn(`pushy: ${text}`);
  }

  /** Connects if the page has not done so yet. */
  _wake() {
    if (this.state === "idle") this.connect();
  }

  /**
   * Sends a command now.
   * @param {string} command
   * @param {any} data
   * @param {Request} request
   */
  _request(command, data, request) {
    const id = `pushy:${++this._ids}`; // with a prefix, so that it differs from ids in the host's own messages
    const text = JSON.stringify({ command, data, id });
    this._requests.set(id, request);
    request._size = text.length;
    const { _timeout } = request;
    if (_timeout) request._timer = setTimeout(() => this._settle(id, new PushyError(`No answer to ${command} in ${_timeout} ms`, "timeout")), _timeout);
    this._send(text);
  }

  /** @param {string} text */
  _send(text) {
    this._link?._send(text);
  }

  /**
   * @param {any} id
   * @param {PushyError} [error]
   * @param {any} [data]
   */
  _settle(id, error, data) {
    const request = this._requests.get(id);
    if (!request) return;
    this._requests.delete(id);
    clearTimeout(request._timer);
    request._done(error, data);
  }

  /** @param {Channel} channel @returns {Promise<Token>} */
  async _authorize(channel) {
    const { auth } = this._how;
    return typeof auth === "function" ? auth(channel._key, /** @type {string} */ (this.socketId)) : this._ask(channel);
  }

  /** Renews the subscriptions that end, those that are due at about the same time together. */
  _renew() {
    const due = (/** @type {number} */ part) => [...this.channels.values()].filter((channel) => channel._due(part));
    if (due(this._part)[0]) for (const channel of due(0.75)) channel._join();
  }

  /** @param {string} state @param {object} [detail] */
  _set(state, detail) {
    this.state = /** @type {import("../pushy.d.ts").State} */ (state);
    this._emit("state", { state, retryAt: this.retryAt, transport: this.transport, ...detail });
  }

  /** Determines the server's URL and tries the transports. */
  async _dial() {
    clearTimeout(this._timer);
    const turn = (this._try = {});
    this.retryAt = undefined;
    this._set("connecting");
    if (this._try !== turn) return;
    this._timer = setTimeout(() => this._end(1006, "timeout"), longest);
    try {
      const at = address(typeof this.url === "function" ? await this.url() : this.url);
      if (this._try !== turn) return;
      this._at = at;
      at ? this._open(at, this._order(at)) : this._end(1000, "", {}, true);
    } catch (error) {
      if (this._try === turn) this._end(1006, `${error}`);
    }
  }

  /**
   * A transport that has worked for this page will work again: probably the server is down.
   * @param {Address} [_at]
   * @returns {string[]}
   */
  _order(_at) {
    return this.transport && this._failures < 3 ? [this.transport] : this._transports;
  }

  /**
   * Tries one transport, and the next one if it does not connect in time.
   * @param {Address} at
   * @param {string[]} names
   * @param {number} [index]
   */
  _open(at, names, index = 0) {
    clearTimeout(this._timer);
    const turn = (this._try = {});
    const name = names[index];
    /** @type {import("./links.js").Events["_close"]} */
    const over = (code, reason, answer = {}) => {
      if (this._try !== turn) return;
      // A server that sends Retry-After or 1013 can be reached, so no other transport is tried.
      if (this.connected || isFinal(code) || code === busy || answer._retryAfter || index + 1 === names.length) this._end(code, reason, answer);
      else this._open(at, names, index + 1);
    };
    this._timer = setTimeout(() => {
      this._link?._close();
      over(1006, "timeout");
    }, Math.min(patience * (this._failures + 1), longest));
    try {
      this._link = links[name](at, this._how, {
        _alive: () => (this._alive = Date.now()),
        _close: over,
        _oversized: (text) => this._settle(JSON.parse(text).id, tooLarge(text.length, 413)),
        _message: (text) => {
          if (this._try !== turn) return;
          this._alive = Date.now();
                /** @type {any} */
          let message;
          try {
            message = JSON.parse(text);
          } catch {}
          if (typeof message?.event !== "string") return;
          if (message.event === "pushy:connect") {
            if (this.connected) return over(1006, "");
            this.transport = name;
          }
          this._receive(message, text);
          return true;
        },
      });
    } catch (error) {
      over(1006, `${error}`); // an insecure WebSocket from a secure page
    }
  }

  /** @param {{socketId: string, protocol: string, returnWithin?: any}} data */
  _connected(data) {
    const { socketId, protocol } = (this._said = data);
    clearTimeout(this._timer);
    this._since = Date.now();
    for (const [channel, key] of kept(/** @type {Address} */ (this._at))) this._keys.set(channel, key);
    this._was = [...this._was, (this.socketId = socketId)].slice(-8);
    this.protocol = protocol;
    this._set("connected");
    this._emit("connect", this);
    for (const channel of this.channels.values()) if (channel._wanted && !channel._turn && this.connected) channel._join();
    if (this.connected) for (const waiting of this._waiting.splice(0)) this._request(...waiting);
  }

  /**
   * Ends the connection, or an attempt to connect.
   * @param {number} code
   * @param {string} reason
   * @param {import("./links.js").Answer} [answer]
   * @param {boolean} [final]
   */
  _end(code, reason, answer = {}, final = isFinal(code)) {
    clearTimeout(this._timer);
    const was = this.connected;
    this._link?._close(code);
    this._link = this._try = this.socketId = this.protocol = undefined;
    if (final || (was && Date.now() - this._since > steady)) this._failures = 0;
    if (final) {
      this._unwatch?.();
      this._unwatch = this.retryAt = undefined;
    } else {
      const asked = retryAfter(answer._retryAfter), wait = asked + delay(this._failures++, this._how, was && this._said, code);
      this.retryAt = Date.now() + wait;
      this._notBefore = Date.now() + asked;
      this._timer = setTimeout(() => this._dial(), wait);
    }
    if (code !== 1000 && code !== cached && (final || !was) && !this._heard("state") && !(was && this._heard("disconnect"))) {
      this._warn([final ? "closed" : "no connection", code, reason, answer._body].join(" ").trim());
    }
    this._set(final ? "closed" : "waiting", { code, reason, body: answer._body });
    // The message that was too large is one of those that are not answered yet.
    const requests = [...this._requests], largest = Math.max(...requests.map(([, { _size }]) => _size));
    for (const [id, { _size }] of requests) {
      this._settle(id, code === 1009 && _size === largest ? tooLarge(largest, code) : new PushyError("Disconnected", "unknown"));
    }
    if (final) for (const [name, , { _done }] of this._waiting.splice(0)) _done(unsent(name, "closed"));
    if (!was) return;
    this._emit("disconnect", this, { code, reason });
    for (const channel of this.channels.values()) {
      if (!channel._given?._anywhere) channel._given = undefined; // it is valid for one connection
      channel._lost(reason);
    }
  }

  /** @param {string} why what has happened, see wake.js */
  _look(why) {
    if (why === "pagehide") {
      // The browser would keep the connection, and other users would still see the member.
      if (this._at) kept(this._at, this._keys);
      if (this.connected || this.connecting) this._end(cached, why);
      clearTimeout(this._timer); // until pageshow
      this._failures = this._notBefore = 0;
    } else if (this.state === "waiting" && !/^(tick|off)/.test(why) && Date.now() >= this._notBefore) this._dial();
    else if (this.connected && (why !== "tick" || Date.now() - this._alive > silence)) this._probe();
    else if (this.connected && !this._probing) this._renew(); // after a sleep the connection is checked first
  }

  /** Checks the connection with a command that the server does not know: it answers with an error. */
  _probe() {
    const turn = this._try, alive = this._alive;
    if (this._probing === turn) return;
    this._probing = turn;
    this._request("pushy:ping", undefined, {
      _quiet: true, _timeout: patienceForAnswer,
      _done: (error) => {
        this._probing = undefined;
        if (error?.code === "timeout" && this._try === turn && this._alive === alive) this._end(1006, "no answer");
      },
    });
  }

  /**
   * @param {{event: string, channel?: string, data?: any, id?: any}} message
   * @param {string} text
   */
  _receive(message, text) {
    const { event, channel, data, id = data?.id } = message;
    this._emit("internal-msg", text);
    const known = this.channels.get(channel ?? data?.channel);
    const request = this._requests.get(id);
    if (channel !== undefined) return known?._receive(message);
    if (event === "pushy:connect") return this._connected(data);
    if (/^pushy:(drain|return)$/.test(event)) return Object.assign(this._said, data);
    if (event === "pushy:reply") return this._settle(id, undefined, data?.data);
    if (event === "pushy:error") {
      this._settle(id, new PushyError(data.message, data.code));
      if (request?._quiet) return;
      if (!request && !this._heard(event)) this._warn(`${data.message} (${data.code})`);
      return this._emit(event, data);
    }
    const what = /^pushy:subscription-(.+)/.exec(event)?.[1];
    if (!what) this._publish(event, data, message);
    else if (what === "success") this.channel(data.channel)._joined(data); // the host can subscribe us
    else if (what === "end") known?._left(data);
    else if (what === "needauth") known?._needAuth(data.reason);
    else known?._failed(data.reason);
    this._settle(id, undefined, data);
  }
}

/** @param {string} name @param {string} code */
const unsent = (name, code) => new PushyError(`${name} was not sent: ${code}`, code);

/** @param {number} size @param {number} code */
const tooLarge = (size, code) => new PushyError(`Too large: ${size} characters (${code})`, "too-large");
