import { address } from "./address.js";
import { Channel } from "./channel.js";
import { Emitter } from "./emitter.js";
import { PushyError } from "./error.js";
import { links } from "./links.js";
import { recall, remember } from "./memory.js";
import { delay, isFinal } from "./retry.js";
import { watch } from "./wake.js";

/** @typedef {import("../pushy.d.ts").Options} Options */
/** @typedef {import("../pushy.d.ts").Token} Token */
/** @typedef {import("../pushy.d.ts").ExecOptions} ExecOptions */
/** @typedef {import("./links.js").Link} Link */

/**
 * A command on its way.
 * @typedef {object} Request
 * @property {(error?: PushyError, data?: any) => void} done called once, before anything that comes later
 * @property {number} [timeout] milliseconds that an answer may take, 0 for as long as the connection
 * @property {any} [timer]
 * @property {boolean} [quiet] an error is not the page's business
 */

const steady = 5000; // a connection that lasted so long begins a new count of failures
const silence = 45_000; // after which the server is asked whether it is there
const answer = 5000; // that it has for saying so
const patience = 3500; // for a transport to get through, more after each failure
const longest = 15_000;
const mostWaiting = 100; // commands: a server takes 200 at once

export class Pushy extends Emitter {
  /**
   * @param {import("../pushy.d.ts").Url} [url]
   * @param {string | import("../pushy.d.ts").Authorize} [authHandler]
   * @param {Options} [options]
   */
  constructor(url = "/pushy", authHandler, options = {}) {
    super();
    this.url = url;
    /** @type {import("../pushy.d.ts").State} */
    this.state = "idle";
    /** @type {Map<string, Channel>} */
    this.channels = new Map();
    /** @type {string | undefined} */
    this.socketId = undefined;
    /** @type {string | undefined} */
    this.protocol = undefined;
    /** @type {string | undefined} */
    this.transport = undefined;
    /** @type {number | undefined} */
    this.retryAt = undefined;
    this._authHandler = authHandler;
    this._how = options;
    this._min = options.minDelay ?? 500;
    this._max = options.maxDelay ?? 20_000;
    this._failures = 0;
    this._since = 0; // when the connection came
    this._heard = 0; // when the server was last heard of
    this._ids = 0;
    /** @type {Map<string, Request>} */
    this._requests = new Map();
    /** @type {[string, any, Request][]} */
    this._waiting = [];
    /** @type {Link | undefined} */
    this._link = undefined;
    /** @type {any} */
    this._timer = undefined;
    /** What is being tried; what comes of an earlier one is ignored. @type {object | undefined} */
    this._try = undefined;
    /** @type {(() => void) | undefined} */
    this._unwatch = undefined;
    /** @type {object | undefined} */
    this._probing = undefined;
    if (typeof url === "string") address(url); // else nothing would tell of a typo
  }

  get connected() {
    return this.state === "connected";
  }

  get connecting() {
    return this.state === "connecting";
  }

  /** @param {string} name */
  channel(name) {
    const key = name.toLowerCase();
    let channel = this.channels.get(key);
    if (!channel) this.channels.set(key, (channel = new Channel(this, name)));
    return channel;
  }

  connect() {
    if (!this.connected && !this.connecting) {
      this._unwatch ??= watch((why) => this._look(why));
      this._dial();
    }
    return this;
  }

  disconnect() {
    if (this.state !== "closed") this._end(1000, "", true);
    return this;
  }

  /**
   * @param {string} name
   * @param {any} [data]
   * @param {ExecOptions} [options]
   */
  exec(name, data, options = {}) {
    /** @type {Promise<any>} */
    const promise = new Promise((resolve, reject) => {
      /** @type {Request} */
      const request = {
        timeout: options.timeout ?? this._how.timeout ?? 30_000,
        done: (error, data) => (error ? reject(error) : resolve(data)),
      };
      if (this.connected) this._request(name, data, request);
      else if (this.state === "closed") reject(unsent(name, "closed"));
      else if ((options.offline ?? this._how.offline) === "reject") reject(unsent(name, "offline"));
      else if (this._waiting.length >= mostWaiting) reject(new PushyError(`${mostWaiting} commands wait already`, "full"));
      else this._waiting.push([name, data, request]);
      this._wake();
    });
    promise.catch(() => {}); // who ignores the answer may ignore this one, too
    return promise;
  }

  /** Connects for a page that has never asked for it. */
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
    const id = `pushy:${++this._ids}`; // not the id of something that the host's own messages tell of
    this._requests.set(id, request);
    const { timeout } = request;
    if (timeout) request.timer = setTimeout(() => this._settle(id, new PushyError(`No answer to ${command} in ${timeout} ms`, "timeout")), timeout);
    this._link?.send(JSON.stringify({ command, data, id }));
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
    clearTimeout(request.timer);
    request.done(error, data);
  }

  /**
   * @param {string} channel
   * @returns {Promise<Token>}
   */
  async _authorize(channel) {
    const handler = this._authHandler ?? "/pushy/auth";
    const connection_id = /** @type {string} */ (this.socketId);
    if (typeof handler === "function") return handler(channel, connection_id);
    const { headers, fetch: request = fetch } = this._how;
    const response = await request(handler, {
      method: "POST", credentials: "include", signal: AbortSignal.timeout(10_000),
      headers: typeof headers === "function" ? await headers() : headers,
      body: new URLSearchParams({ channel, connection_id }),
    });
    const { status } = response;
    const body = await response.text();
    try {
      if (response.ok) return JSON.parse(body);
    } catch {
      // a login page, perhaps
    }
    throw { status, body };
  }

  /** @param {string} state @param {object} [detail] */
  _set(state, detail) {
    this.state = /** @type {import("../pushy.d.ts").State} */ (state);
    this._emit("state", { state, retryAt: this.retryAt, transport: this.transport, ...detail });
  }

  /** Asks where the server is and tries the transports there is reason to try. */
  async _dial() {
    clearTimeout(this._timer);
    const turn = (this._try = {});
    this.retryAt = undefined;
    this._set("connecting");
    if (this._try !== turn) return;
    this._timer = setTimeout(() => this._end(1006, "timeout"), longest);
    try {
      const at = address(typeof this.url === "string" ? this.url : await this.url());
      if (this._try === turn) this._open(at, this._order(at));
    } catch (error) {
      if (this._try === turn) this._end(1006, String(error));
    }
  }

  /** @param {(path: string) => string} at */
  _order(at) {
    const { SockJS, transports = ["websocket", "streaming", "polling"] } = this._how;
    if (SockJS) return ["sockjs"];
    const known = transports.indexOf(/** @type {any} */ (recall(key(at))));
    // What has worked for this page will again: rather its server is down.
    if (this.transport && this._failures < 3 && (known > 0 || this.transport === transports[0])) return [this.transport];
    return known > 0 && !this._failures ? transports.slice(known) : transports;
  }

  /**
   * Tries one transport, and the next if it does not get through in time.
   * @param {(path: string) => string} at
   * @param {string[]} names
   * @param {number} [index]
   */
  _open(at, names, index = 0) {
    clearTimeout(this._timer);
    const turn = (this._try = {});
    const name = names[index];
    const over = (/** @type {number} */ code, /** @type {string} */ reason) => {
      if (this._try !== turn) return;
      if (this.connected || isFinal(code) || index + 1 === names.length) this._end(code, reason);
      else this._open(at, names, index + 1);
    };
    this._timer = setTimeout(() => {
      this._link?.close();
      over(1006, "timeout");
    }, Math.min(patience * (this._failures + 1), longest));
    try {
      this._link = links[name](at, this._how, {
        alive: () => (this._heard = Date.now()),
        close: over,
        message: (text) => {
          if (this._try !== turn) return;
          this._heard = Date.now();
          if (!this.connected) {
            this.transport = name;
            if (index) remember(key(at), name);
          }
          this._receive(text);
        },
      });
    } catch (error) {
      over(1006, String(error)); // an insecure WebSocket from a secure page
    }
  }

  /** @param {{socketId: string, protocol: string}} data */
  _connected({ socketId, protocol }) {
    clearTimeout(this._timer);
    this._since = Date.now();
    this.socketId = socketId;
    this.protocol = protocol;
    this._set("connected");
    this._emit("connect", this);
    for (const channel of this.channels.values()) if (channel._wanted && !channel._turn && this.connected) channel._join();
    for (const [name, data, request] of this.connected ? this._waiting.splice(0) : []) this._request(name, data, request);
  }

  /**
   * The connection, or a try of one, is over.
   * @param {number} code
   * @param {string} reason
   * @param {boolean} [final]
   */
  _end(code, reason, final = isFinal(code)) {
    clearTimeout(this._timer);
    const was = this.connected;
    this._link?.close();
    this._link = this._try = this.socketId = this.protocol = undefined;
    if (final || (was && Date.now() - this._since > steady)) this._failures = 0;
    if (final) {
      this._unwatch?.();
      this._unwatch = this.retryAt = undefined;
    } else {
      const wait = delay(this._failures++, this._min, this._max);
      this.retryAt = Date.now() + wait;
      this._timer = setTimeout(() => this._dial(), wait);
    }
    this._set(final ? "closed" : "waiting", { code, reason });
    for (const id of [...this._requests.keys()]) this._settle(id, new PushyError("Disconnected before the answer: the outcome is unknown", "unknown"));
    if (final) for (const [name, , { done }] of this._waiting.splice(0)) done(unsent(name, "closed"));
    if (!was) return;
    this._emit("disconnect", this, { code, reason });
    for (const channel of this.channels.values()) channel._lost(reason);
  }

  /** @param {"tick" | "woke" | "offline"} why */
  _look(why) {
    if (this.state === "waiting" && why === "woke") this._dial();
    if (this.connected && (why !== "tick" || Date.now() - this._heard > silence)) this._probe();
  }

  /** Sees whether the server is there: it answers any command, if only that it does not know it. */
  _probe() {
    const turn = this._try, asked = Date.now();
    if (this._probing === turn) return;
    this._probing = turn;
    this._request("pushy:ping", undefined, {
      quiet: true, timeout: answer,
      done: (error) => {
        this._probing = undefined;
        if (error?.code === "timeout" && this._try === turn && this._heard < asked) this._end(1006, "no answer");
      },
    });
  }

  /** @param {string} text */
  _receive(text) {
    this._emit("internal-msg", text);
    const { event, channel, data } = JSON.parse(text);
    const known = this.channels.get(channel ?? data?.channel);
    const request = this._requests.get(data?.id);
    if (channel !== undefined) return known?._receive(event, data);
    switch (event) {
      case "pushy:connect":
        return this._connected(data);
      case "pushy:reply":
        return this._settle(data.id, undefined, data.data);
      case "pushy:error":
        this._settle(data.id, new PushyError(data.message, data.code));
        if (!request?.quiet) this._emit(event, data);
        return;
      case "pushy:subscription-success":
        this.channel(data.channel)._joined(data); // the host may have put us in
        break;
      case "pushy:subscription-end":
        known?._left(data.reason);
        break;
      case "pushy:subscription-needauth":
        known?._needAuth();
        break;
      case "pushy:subscription-failed":
        known?._failed(data.reason);
        break;
      default:
        this._emit(event, data);
    }
    this._settle(data?.id, undefined, data);
  }
}

/** @param {(path: string) => string} at */
const key = (at) => "pushy:" + at("").split("?")[0];

/** @param {string} name @param {string} code */
const unsent = (name, code) => new PushyError(`Not connected, ${name} was not sent`, code);
