import { Emitter } from "./emitter.js";
import { fromList, withMember, withoutMember } from "./presence.js";
import { delay } from "./retry.js";

/** @typedef {import("./pushy.js").Pushy} Pushy */
/** @typedef {import("../pushy.d.ts").Member} Member */
/** @typedef {import("../pushy.d.ts").Token} Token */

/** More events than this waiting for a `for await` end it with an error. */
const mostWaiting = 10_000;

export class Channel extends Emitter {
  /**
   * @param {Pushy} pushy
   * @param {string} name
   */
  constructor(pushy, name) {
    super();
    this.name = name;
    this.subscribed = false;
    /** @type {string | undefined} */
    this.memberId = undefined;
    /** @type {Map<string, Member>} */
    this.members = new Map();
    this._pushy = pushy;
    this._key = name.toLowerCase();
    this._wanted = false; // by the page, on this connection and the next
    this._leaving = false; // the server has been told, and has not answered
    this._failures = 0;
    /** The subscription under way; what comes back for another is ignored. @type {object | undefined} */
    this._turn = undefined;
    /** The one whose command the server has not answered. @type {object | undefined} */
    this._asking = undefined;
    /** @type {Token | undefined} */
    this._token = undefined;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this._timer = undefined;
    /** @type {Set<(event?: string, data?: any) => void>} */
    this._readers = new Set();
  }

  /** @param {Token} [token] */
  subscribe(token) {
    if (!this._wanted || token || this._timer) {
      this._wanted = true;
      this._failures = 0;
      if (this._pushy.connected) this._join(token);
      else this._pushy._wake();
    }
    return this;
  }

  unsubscribe() {
    this._wanted = false;
    this._stop();
    // Commands run in order: what is being asked for can be left already.
    if (this.subscribed || this._asking) this._leave();
    for (const read of this._readers) read();
    return this;
  }

  async *[Symbol.asyncIterator]() {
    /** @type {{event: string, data: any}[]} */
    const waiting = [];
    let ended = false, wake = () => {};
    const read = (/** @type {string | undefined} */ event, /** @type {any} */ data) => {
      if (event === undefined) ended = true;
      else if (waiting.length <= mostWaiting) waiting.push({ event, data });
      wake();
    };
    this._readers.add(read);
    try {
      for (;;) {
        if (waiting.length > mostWaiting) throw new Error(`${mostWaiting} events of ${this.name} wait`);
        const next = waiting.shift();
        if (next) yield next;
        else if (ended) return;
        else await new Promise((resolve) => (wake = /** @type {() => void} */ (resolve)));
      }
    } finally {
      this._readers.delete(read);
    }
  }

  /**
   * @override
   * @param {string} event
   * @param {any[]} args
   */
  _emit(event, ...args) {
    super._emit(event, ...args);
    for (const read of this._readers) read(event, args[0]);
  }

  /** Ends what is under way, and what is to come. */
  _stop() {
    clearTimeout(this._timer);
    this._timer = this._turn = undefined;
  }

  /**
   * Asks for the channel. Where the page has said who gives tokens, a private one
   * brings one at once; else the server may say that it wants one.
   * @param {Token} [token]
   * @param {boolean} [asked]
   */
  async _join(token, asked = this._key.startsWith("private-") && !!this._pushy._authHandler) {
    if (this.subscribed || this._asking || this._leaving) return; // after the end, see _left
    this._stop();
    const turn = (this._turn = {});
    if (asked && !token) {
      try {
        token = (await this._pushy._authorize(this._key)) ?? {};
      } catch (e) {
        if (this._turn === turn) this._refused(/** @type {any} */ (e ?? {}));
        return;
      }
      if (this._turn !== turn) return;
    }
    this._pushy._request("subscribe", { channel: this.name, auth: token?.auth, data: token?.data }, {
      timeout: 0,
      // The answers themselves come by their names, see _receive: whatever
      // follows them must find them done.
      done: (error) => {
        if (this._asking === turn) this._asking = undefined;
        if (this._turn !== turn || !error || error.code === "unknown") return;
        if (error.code === "429") this._again();
        else this._fail(error.message, error);
      },
    });
    this._asking = turn;
    this._token = token;
  }

  _leave() {
    if (this._leaving) return;
    this._leaving = true;
    this._pushy._request("unsubscribe", { channel: this.name }, {
      timeout: 0,
      done: (error) => error && error.code !== "unknown" && this._left(), // the host was faster
    });
  }

  /** The token that the server asked for. */
  _needAuth() {
    this._asking = undefined;
    if (!this._wanted) return;
    if (this._token) this._fail("Authorization needed");
    else this._join(undefined, true);
  }

  /** @param {{memberId?: string, presence?: Member[]}} data */
  _joined({ memberId, presence }) {
    this._stop();
    this._asking = undefined;
    this._failures = 0;
    this.subscribed = true;
    this.memberId = memberId;
    this.members = fromList(presence);
    if (!this._leaving) this._emit("subscribe", presence);
  }

  /** @param {string} [reason] */
  _left(reason) {
    const again = this._leaving && this._wanted;
    this._leaving = false;
    if (!again) this._wanted = false; // taken out by the host: that is for good
    this.members = new Map();
    this._lost(reason);
    if (again) this._join();
  }

  /** The connection is gone; the members are shown until there is a new list. */
  _lost(/** @type {string | undefined} */ reason) {
    this._stop();
    this._leaving = false;
    this._asking = undefined;
    if (!this.subscribed) return;
    this.subscribed = false;
    this.memberId = undefined;
    this._emit("unsubscribe", reason);
  }

  /** @param {string} reason */
  _failed(reason) {
    this._asking = undefined;
    if (this.subscribed) this._emit("subscribe-error", reason);
    else if (reason === "Temporarily unavailable") this._again();
    else this._fail(reason);
  }

  /**
   * What the one who gives tokens said. A 4xx is an answer; anything else may
   * be another one soon.
   * @param {{status?: number, body?: string, message?: string}} error
   */
  _refused({ status = 0, message = "", body = message }) {
    const final = status >= 200 && status < 500;
    const retryAt = final ? undefined : this._again();
    const detail = { channel: this.name, status, body, retryAt };
    this._emit("auth-error", detail);
    this._pushy._emit("auth-error", detail);
    if (final) this._fail(`Authorization failed (${status})`, detail);
  }

  _again() {
    this._stop();
    const { _min, _max } = this._pushy;
    const wait = delay(this._failures++, _min, _max);
    this._timer = setTimeout(() => this._join(), wait);
    return Date.now() + wait;
  }

  /** @param {string} reason @param {any} [detail] */
  _fail(reason, detail) {
    this._stop();
    this._wanted = false;
    this._emit("subscribe-error", reason, detail);
  }

  /**
   * An event of the channel's.
   * @param {string} event
   * @param {any} data
   */
  _receive(event, data) {
    if (!this.subscribed) return;
    const came = event === "pushy:presence-add";
    if (event === "pushy:presence-sync") this._emit(event, [...(this.members = fromList(data.presence)).values()]);
    else if (came || event === "pushy:presence-quit") {
      this.members = (came ? withMember : withoutMember)(this.members, data.member);
      this._emit(came ? "pushy:member-added" : "pushy:member-quit", data.member);
    } else this._emit(event, data);
  }
}
