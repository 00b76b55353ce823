import { Source } from "./emitter.js";
import { fromList, withMember, withoutMember } from "./presence.js";
import { delay } from "./retry.js";

/** @typedef {import("./pushy.js").Pushy} Pushy */
/** @typedef {import("../pushy.d.ts").Member} Member */
/** @typedef {import("../pushy.d.ts").Token} Token */

/** A `for await` ends with an error if more events than this are queued for it. */
const mostWaiting = 10_000;

/** After this number of consecutive failures of the auth endpoint the channel is given up. */
const mostRefusals = 10;

export class Channel extends Source {
  subscribed = false;
  /** @type {string | undefined} */
  memberId;
  /** @type {Map<string, Member>} */
  members = new Map();
  _wanted = false; // the page wants the subscription, on this connection and the next
  _leaving = false; // the unsubscribe command is sent and not answered yet
  _failures = 0;
  _refusals = 0; // of the auth endpoint, since it last returned a token
  /** The subscription in progress; answers to others are ignored. @type {object | undefined} */
  _turn;
  /** The subscription whose command the server has not answered yet. @type {object | undefined} */
  _asking;
  /** @type {Token | undefined} */
  _token;
  /** A token from the page, for the next subscription that is sent. @type {Token | undefined} */
  _given;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  _timer;
  /** @type {Set<(event?: string, data?: any, published?: boolean) => void>} */
  _readers = new Set();

  /**
   * @param {Pushy} pushy
   * @param {string} name
   */
  constructor(pushy, name) {
    super(/^(pushy:|((un)?subscribe|(subscribe|auth)-error)$)/);
    this.name = name;
    this._pushy = pushy;
    this._key = name.toLowerCase();
  }

  /** @param {Token} [token] */
  subscribe(token) {
    if (!this._wanted || token || this._timer) {
      this._wanted = true;
      this._failures = this._refusals = 0;
      if (token && (!this.subscribed || this._leaving)) this._given = token;
      if (this._pushy.connected) this._join();
      else this._pushy._wake();
    }
    return this;
  }

  unsubscribe() {
    this._wanted = false;
    this._given = undefined;
    this._stop();
    // Commands run in order, so a subscription can be ended before it is answered.
    if (this.subscribed || this._asking) this._leave();
    for (const read of this._readers) read();
    return this;
  }

  async *[Symbol.asyncIterator]() {
    /** @type {import("../pushy.d.ts").ChannelEvent[]} */
    const waiting = [];
    let ended = false, wake = () => {};
    const read = (/** @type {string | undefined} */ event, /** @type {any} */ data, published = false) => {
      if (event === undefined) ended = true;
      else if (waiting.length <= mostWaiting) waiting.push({ event, data, published });
      wake();
    };
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
  }

  /**
   * Emits an event of the client itself.
   * @param {string} event
   * @param {any[]} args
   */
  _tell(event, ...args) {
    this._emit(event, ...args);
    for (const read of this._readers) read(event, args[0]);
  }

  /** Cancels the subscription in progress and the planned retry. */
  _stop() {
    clearTimeout(this._timer);
    this._timer = this._turn = undefined;
  }

  /**
   * Sends the subscription. If the page has set an auth endpoint, the first command for a
   * private channel has a token; otherwise the server may answer that it needs one.
   * @param {boolean} [asked]
   */
  async _join(asked = this._key.startsWith("private-") && !!this._pushy._how.auth) {
    if (this.subscribed || this._asking || this._leaving) return; // _left joins again
    this._stop();
    const turn = (this._turn = {});
    let token = this._given;
    this._given = undefined;
    if (asked && !token) {
      try {
        token = (await this._pushy._authorize(this._key)) || {}; // an endpoint can answer false
      } catch (e) {
        if (this._turn === turn) this._refused(/** @type {any} */ (e ?? {}));
        return;
      }
      if (this._turn !== turn) return;
      this._refusals = 0;
    }
    this._pushy._request("subscribe", { channel: this.name, auth: token?.auth, data: token?.data }, {
      _timeout: 0,
      // Pushy handles the answers themselves by the names of their events, because they must
      // take effect before the next message is read.
      _done: (error) => {
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
      _timeout: 0,
      _done: (error) => error && error.code !== "unknown" && this._left(), // the server has ended it already
    });
  }

  /** The server demands a token. */
  _needAuth() {
    this._asking = undefined;
    if (!this._wanted) return;
    if (this._token) this._fail("Authorization needed");
    else this._join(true);
  }

  /** @param {{memberId?: string, presence?: Member[]}} data */
  _joined({ memberId, presence }) {
    this._stop();
    this._asking = undefined;
    this._failures = 0;
    this.subscribed = true;
    this.memberId = memberId;
    this.members = fromList(presence);
    if (this._leaving) return;
    this._given = undefined;
    this._tell("subscribe", presence);
  }

  /** @param {string} [reason] */
  _left(reason) {
    const again = this._leaving && this._wanted;
    if (!again) this._wanted = false; // the host removed the client: that is final
    this.members = new Map();
    this._lost(reason);
    if (again) this._join();
  }

  /** The connection is lost. The members remain until a new list arrives. */
  _lost(/** @type {string | undefined} */ reason) {
    this._stop();
    this._leaving = false;
    this._asking = undefined;
    if (!this.subscribed) return;
    this.subscribed = false;
    this.memberId = undefined;
    this._tell("unsubscribe", reason);
  }

  /** @param {string} reason */
  _failed(reason) {
    this._asking = undefined;
    if (this.subscribed) this._tell("subscribe-error", reason);
    else if (reason === "Temporarily unavailable") this._again();
    else this._fail(reason);
  }

  /**
   * The auth endpoint or function did not return a token. A 4xx is final; after anything else
   * the client retries.
   * @param {{status?: number, body?: string, message?: string}} error
   */
  _refused({ status = 0, message = "", body = message }) {
    const refused = status >= 200 && status < 500, final = refused || ++this._refusals >= mostRefusals;
    const retryAt = final ? undefined : this._again();
    const detail = { channel: this.name, status, body, retryAt };
    this._tell("auth-error", detail);
    this._pushy._emit("auth-error", detail);
    if (!final) return;
    let reason = `Authorization failed (${status})`;
    if (refused && status < 300) reason += `: not JSON, it begins with ${JSON.stringify(body.slice(0, 60))}`;
    if (!refused) this._pushy._warn(`${this.name} is given up: ${reason}`);
    this._fail(reason, detail, !refused || this._heard("auth-error") || this._pushy._heard("auth-error"));
  }

  _again() {
    this._stop();
    const wait = delay(this._failures++, this._pushy._how);
    this._timer = setTimeout(() => this._join(), wait);
    return Date.now() + wait;
  }

  /** @param {string} reason @param {any} [detail] @param {any} [heard] whether the page was notified already */
  _fail(reason, detail, heard) {
    if (this._given) {
      this._join(); // with the token that the page has passed meanwhile
      return;
    }
    this._stop();
    this._wanted = false;
    if (!heard && !this._heard("subscribe-error") && !this._readers.size) this._pushy._warn(`${this.name}: ${reason}`);
    this._tell("subscribe-error", reason, detail);
  }

  /**
   * Handles a message to the channel.
   * @param {string} event
   * @param {any} data
   */
  _receive(event, data) {
    if (!this.subscribed) return;
    const added = event === "pushy:presence-add";
    if (event === "pushy:presence-sync") this._tell(event, [...(this.members = fromList(data.presence)).values()]);
    else if (added || event === "pushy:presence-quit") {
      this.members = (added ? withMember : withoutMember)(this.members, data.member);
      this._tell(added ? "pushy:member-added" : "pushy:member-quit", data.member);
    } else if (event === "pushy:resync") this._tell(event, data);
    else {
      this._publish(event, data);
      for (const read of this._readers) read(event, data, true);
    }
  }
}
