import { Source } from "./emitter.js";
import { delay } from "./retry.js";
import { past, read } from "./token.js";

/** @typedef {import("./pushy.js").Pushy} Pushy */
/** @typedef {import("../pushy.d.ts").Member} Member */
/** @typedef {import("../pushy.d.ts").Token} Token */
/** @typedef {import("../pushy.d.ts").ChannelOptions} ChannelOptions */
/** @typedef {{epoch: string, offset: number}} Place */

/** After this number of consecutive failures of the auth endpoint the channel is given up. */
const mostRefusals = 10;

/** The shortest life, in milliseconds, of a token whose age is not known. */
const shortest = 60_000;

export class Channel extends Source {
  subscribed = false;
  /** @type {string | undefined} */
  memberId;
  /** @type {Map<string, Member>} */
  members = new Map();
  count = 0;
  _wanted = false; // the page wants the subscription, on this connection and the next
  _leaving = false; // the unsubscribe command is sent and not answered yet
  _failures = 0;
  _refusals = 0; // of the auth endpoint, since it last returned a token
  /** The subscription in progress; answers to others are ignored. @type {object | undefined} */
  _turn;
  /** The subscription whose command the server has not answered yet. @type {object | undefined} */
  _asking;
  /** The token of the subscription, or of the last one. @type {import("./token.js").Known | undefined} */
  _token;
  /** A token from the page, for the next subscription that is sent. @type {import("./token.js").Known | undefined} */
  _given;
  /** Whether the subscription ends with its token. @type {any} */
  _ends;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  _timer;
  /** @type {ChannelOptions} */
  _how = {};
  /** The position of the last event that this client has. @type {Place | undefined} */
  _place;
  /** The position after the replay. @type {Place | undefined} */
  _top;
  _replay = 0; // the number of events that are still to be replayed
  _recovered = false; // the replay continues at _place
  /** @type {boolean | undefined} */
  _known; // the page has received the channel's state: what it misses after that is a gap
  /** @type {any} */
  _settling;
  /** The revision of the members, if all of them are known. @type {string | undefined} */
  _revision;

  /**
   * @param {Pushy} pushy
   * @param {string} name
   */
  constructor(pushy, name) {
    super(/^(pushy:(?!dropped)|((un)?subscribe|(subscribe|auth)-error)$)/);
    this.name = name;
    this._pushy = pushy;
    this._key = name.toLowerCase();
  }

  /** @param {Token} [token] */
  subscribe(token) {
    if (!this._wanted || token || this._timer) {
      this._wanted = true;
      this._failures = this._refusals = 0;
      if (token && (!this.subscribed || this._leaving || this._ends)) {
        const now = Date.now(), given = (this._given = read(token, now)), { auth } = this._pushy._how;
        given._spare = auth && given._anywhere;
        // It can be older than the page knows. If the clock is wrong, this costs a request.
        if (given._spare) given._life = Math.min(given._life, given._from + given._life - now);
      }
      if (this._pushy.connected) this._join();
      else this._pushy._wake();
    }
    return this;
  }

  unsubscribe() {
    this._wanted = false;
    this._given = undefined;
    this._stop();
    this._forget();
    this._leave();
    return this;
  }

  /** Cancels the subscription in progress and the planned retry. */
  _stop() {
    clearTimeout(this._timer);
    this._timer = this._turn = undefined;
  }

  /**
   * Sends the subscription, or renews it. If the page has set an auth endpoint, the first command for
   * a private channel has a token; otherwise the server may answer that it needs one. The token of a
   * user is used on each connection until it expires.
   * @param {boolean} [asked]
   */
  async _join(asked = this._key.startsWith("private-") && !!this._pushy._how.auth) {
    const renews = this.subscribed;
    if ((renews && !this._ends) || this._asking || this._leaving) return; // _left joins again
    this._stop();
    const turn = (this._turn = {}), began = Date.now();
    let token = this._given ?? (!renews && this._token?._anywhere ? this._token : undefined);
    this._given = undefined;
    if (token && past(token)) token = undefined;
    if (!token && (asked || renews)) {
      try {
        token = read((await this._pushy._authorize(this)) || {}, began); // an endpoint can answer false
      } catch (e) {
        if (this._turn === turn) this._refused(/** @type {any} */ (e ?? {}));
        return;
      }
      if (this._turn !== turn) return;
      this._refusals = 0;
    }
    const { presence = "diff", ...how } = this._how, pushy = this._pushy;
    if (renews) {
      return pushy._request("pushy:refresh", { channel: this.name, auth: token?.auth, data: token?.data }, {
        _quiet: true, _timeout: 0,
        _done: (error, data) => {
          if (this._turn !== turn || error?.code === "unknown") return;
          this._turn = undefined;
          if (!error) {
            this._failures = 0;
            this._token = token;
            this._until(data.expires);
          } else if (/^(429|5)/.test(error.code)) this._again();
          else this._fail(error.message, error);
        },
      });
    }
    pushy._request("subscribe", {
      channel: this.name, auth: token?.auth, data: token?.data,
      hold: true, ...how, member: pushy._keys.get(this._key) ?? undefined,
      since: this._place, was: this._place && pushy._was,
      presence: { limit: 500, since: this._revision, mode: presence },
    }, {
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

  /**
   * Sends an event to the other members.
   * @param {string} event
   * @param {any} [data]
   */
  send(event, data) {
    const pushy = this._pushy, sent = pushy.connected && this.subscribed && !this._leaving;
    if (sent) pushy._send(JSON.stringify({ event, channel: this.name, data }));
    return sent;
  }

  _leave() {
    // Commands run in order, so a subscription can be ended before it is answered.
    if (this._leaving || !(this.subscribed || this._asking)) return;
    this._leaving = true;
    this._pushy._request("unsubscribe", { channel: this.name }, {
      _timeout: 0,
      _done: (error) => error && error.code !== "unknown" && this._left(), // the server has ended it already
    });
  }

  /** The server demands a token, or refuses the one that it has received. */
  _needAuth(reason = "Authorization needed") {
    this._asking = undefined;
    if (!this._wanted) return;
    if (this._token && !this._token._spare) return this._fail(reason);
    this._token = undefined;
    this._join(true);
  }

  /**
   * The subscription has begun, or is renewed.
   * @param {number} [expires] when it ends, by the server's clock; undefined if it does not
   */
  _until(expires) {
    const token = this._token;
    if (!token) return (this._ends = undefined);
    token._spare = true;
    this._ends = expires;
    if (!expires) return;
    const now = Date.now();
    if (token._from) token._life = expires - token._from;
    else {
      // Only the host knows its tokens. The client must rely on its own clock, with a lower limit.
      token._got = now;
      token._life = Math.max(expires - now, shortest);
    }
  }

  /** Whether this part of the token's life has passed, and nothing is done about it yet. @param {number} part */
  _due(part) {
    return this.subscribed && this._ends && this._wanted && !this._turn && !this._timer && past(/** @type {any} */ (this._token), part);
  }

  /** The page does not continue the subscription. */
  _forget() {
    this._keep((this._known = this._place = undefined));
  }

  /** @param {any} data */
  _joined(data) {
    const { memberId: id, self = id, key, epoch, offset, replay, presence, members } = data, { _known } = this;
    this._stop();
    this._asking = undefined;
    this._failures = 0;
    this._known = this.subscribed = true;
    this._until(data.expires);
    this.memberId = self;
    this._keep(key && { id, key });
    this._top = epoch && { epoch, offset };
    this._recovered = data.recovered;
    this._replayed(replay);
    if (members?.since) this._change(members);
    // A server that was restarted with another secret gives all members new ids.
    else this._list(members ?? { list: presence }, data.resumed && data.settling);
    if (this._leaving) return this._forget();
    this._given = undefined;
    this._emit("subscribe", members ? this._all() : presence, data);
    if (_known && !data.recovered) this._gap(data);
  }

  /** @param {{id: string, key: string}} [mine] the key of this membership, for the next connection or page */
  _keep(mine) {
    this._pushy._keys.set(this._key, mine);
  }

  _all() {
    return [...this.members.values()];
  }

  /** Continues after a kept event, or after a success that nothing is replayed for. @param {any} left @param {number} [offset] */
  _replayed(left, offset) {
    this._replay = left;
    if (!left) this._place = this._top;
    else if (offset && this._recovered) this._place = { .../** @type {Place} */ (this._top), offset };
  }

  /**
   * The page may have missed events. All clients miss events at the same time if the server has
   * lost them (restarted, epoch), so they do not fetch the state at the same time.
   * @param {any} data
   */
  _gap(data = {}) {
    const tell = () => this._known && this._emit("pushy:gap", data);
    /^(re|ep)/.test(data.reason) ? setTimeout(tell, Math.random() * 5000) : tell();
  }

  /**
   * The server has sent a list of the members.
   * @param {{list?: Member[], revision?: string, count?: number, next?: string}} page
   * @param {number} [settling] for how long the server may not know all members
   */
  _list({ list, revision, count, next }, settling) {
    const before = settling ? [...this.members] : [];
    this.members = new Map([...before, ...(list ?? []).map((member) => /** @type {[string, Member]} */ ([member.memberId, member]))]);
    this._revision = next ? undefined : revision;
    this.count = count ?? this.members.size;
    if (next) /** @type {any} */ (this)._page?.(next); // more.js loads the rest
    clearTimeout(this._settling);
    if (settling) this._settling = setTimeout(() => this._change({ quit: before.filter(([id, member]) => this.members.get(id) === member).map(([id]) => id) }, true), settling);
  }

  /**
   * @param {{add?: Member[], quit?: (string | Member)[], update?: any[], revision?: string, count?: number}} changes
   * @param {boolean} [told] whether the page receives each change as an event
   */
  _change({ add = [], quit = [], update = [], revision, count }, told) {
    /** @type {[string, Member][]} */
    const news = [], members = (this.members = new Map(this.members));
    for (const member of [...add, ...update]) {
      // A whole member has the field "subscribed", and replaces the one that is known. Changes of a
      // member that is not known yet are ignored: the member itself follows with a page.
      const id = member.memberId, known = members.get(id), now = { .../** @type {any} */ ("subscribed" in member || known), ...member };
      if ("subscribed" in now) news.push([known ? "updated" : "added", now]) && members.set(id, now);
    }
    for (const member of quit) {
      const id = /** @type {any} */ (member).memberId ?? member, known = members.get(id);
      if (members.delete(id)) news.push(["quit", /** @type {Member} */ (known)]);
    }
    this.count = count ?? members.size;
    this._revision &&= revision ?? this._revision;
    if (told) for (const [what, member] of news) this._emit(`pushy:member-${what}`, member);
  }

  /** @param {{reason?: string, again?: boolean}} [data] */
  _left({ reason, again } = {}) {
    this._wanted &&= again || this._leaving; // otherwise the host has removed the client: that is final
    this._list({});
    again ? this._keep() : this._forget(); // another connection has the membership
    this._lost(reason);
    if (this._wanted) this._join();
  }

  /** The connection is lost. The members remain until a new list arrives. */
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
    else if (this._token?._spare) this._needAuth();
    else this._fail(reason);
  }

  /**
   * The auth endpoint or function did not return a token. A 4xx is final; after anything else
   * the client retries.
   * @param {{status?: number, body?: string, message?: string, _group?: any}} error
   */
  _refused({ status = 0, message = "", body = message, _group: group }) {
    const refused = status >= 200 && status < 500, final = refused || ++this._refusals >= mostRefusals;
    const retryAt = final ? undefined : this._again(group);
    const detail = { channel: this.name, status, body, retryAt };
    this._emit("auth-error", detail);
    this._pushy._emit("auth-error", detail);
    if (!final) return;
    let reason = `Authorization failed (${status})`;
    if (refused && status < 300) reason += `: not JSON, it begins with ${JSON.stringify(body.slice(0, 60))}`;
    if (!refused) this._pushy._warn(`${this.name} is given up: ${reason}`);
    this._fail(reason, detail, !refused || this._heard("auth-error") || this._pushy._heard("auth-error"));
  }

  /** @param {{_wait?: number}} [group] those that were refused together are tried again together */
  _again(group = {}) {
    this._stop();
    const { _got: got, _life: life } = this._token ?? {}, now = Date.now();
    let least = delay(this._failures++, this._pushy._how);
    // An endpoint that fails has the rest of the token's life to recover.
    if (this.subscribed) least = Math.max(least, (/** @type {any} */ (got) + life - now) / mostRefusals);
    const wait = (group._wait ??= least);
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
    if (!heard && !this._heard("subscribe-error")) this._pushy._warn(`${this.name}: ${reason}`);
    this._emit("subscribe-error", reason, detail);
  }

  /**
   * Handles a message to the channel.
   * @param {{event: string, data?: any, offset?: number}} message
   */
  _receive(message) {
    const { event, data, offset } = message;
    if (!this.subscribed || this._leaving) return;
    const presence = /^pushy:presence-(.+)/.exec(event)?.[1];
    if (presence === "sync") {
      this._list({ list: data.presence });
      this._emit(event, this._all());
    } else if (presence) this._change(presence === "diff" ? data : { [presence]: [data.member] }, true);
    else if (event === "pushy:resync") {
      const { epoch, offset } = data ?? {};
      if (epoch) this._place = { epoch, offset };
      this._emit(event, data);
      this._gap(data);
    } else {
      if (offset) {
        if (this._replay) this._replayed(this._replay - 1, offset);
        else if (this._place) {
          if (offset <= this._place.offset) return;
          this._place.offset = offset;
        }
      }
      this._publish(event, data, message);
    }
  }
}
