// Tokens: until when they can be used, and how the auth endpoint is asked for them.

/** @typedef {import("../pushy.d.ts").Token} Token */
/** @typedef {import("./channel.js").Channel} Channel */

/**
 * A token, and what it says about itself if it is of version 2.
 * @typedef {Token & {_got: number, _from: number, _life: number, _anywhere: any, _spare?: any}} Known
 * @property _got when this client received it
 * @property _from when it was issued, by the clock of the server; NaN if it is of version 1
 * @property _life for how long it is valid, in milliseconds; NaN if it is valid as long as its connection
 * @property _anywhere whether it is valid on each connection of its user
 * @property _spare whether the auth endpoint is asked for another one if the server refuses it
 */

/**
 * Reads a token. Its life is the difference of two times of the server's clock, and the client
 * compares it with the time since it received the token, so its own clock need not be right.
 * @param {Token} token
 * @param {number} got
 * @returns {Known}
 */
export function read({ auth, data }, got) {
  /** @type {any} */
  let claims = {};
  try {
    claims = JSON.parse(atob(/** @type {string} */ (auth).split(".")[2].replace(/-/g, "+").replace(/_/g, "/")));
  } catch {}
  const { iat, exp, user, conn } = claims;
  return { auth, data, _got: got, _from: iat * 1000, _life: (exp - iat) * 1000, _anywhere: exp && user !== undefined && !conn };
}

/**
 * Whether a part of a token's life has passed, or the clock was set back.
 * @param {Known} token
 * @param {number} [part]
 */
export function past({ _got, _life }, part = 1) {
  const age = Date.now() - _got;
  return age < 0 || age >= _life * part;
}

const most = 100; // channels in one request
const gather = 10; // milliseconds in which channels are collected for one request

/** @typedef {[channel: Channel, turn: any, resolve: (token: any) => void, reject: (error: any) => void]} Asked */

/**
 * Returns the function that asks the auth endpoint for a channel's token. An endpoint that can
 * answer for many channels says so in its answers ("batch"); until it has, and if it does not, each
 * request has one channel. So the first request has one, and the other channels wait for its answer.
 * @param {import("./pushy.js").Pushy} pushy
 * @returns {(channel: Channel) => Promise<Token>}
 */
export function asker(pushy) {
  /** @type {Asked[]} */
  let queue = [];
  let size = 0; // the number of channels in a request; 0: not known yet
  /** The connection on which the first request is not answered yet. @type {any} */
  let first;
  /** @type {any} */
  let timer;
  /** An answer for another subscription than the one in progress is of no use. @param {Asked} asked */
  const wanted = ([channel, turn]) => channel._turn === turn;

  /** @param {Asked[]} asked */
  const post = async (asked) => {
    const many = asked.length > 1, group = {};
    const fail = (/** @type {any} */ error) => asked.forEach(([, , , reject]) => reject({ ...error, _group: group }));
    try {
      const { auth, headers, fetch: request = fetch } = pushy._how;
      const form = asked.map(([{ _key }]) => ["channel", _key]);
      form.push(["connection_id", /** @type {string} */ (pushy.socketId)]);
      if (size > 1) form.push(["v", "2"]);
      const response = await request(auth ?? /** @type {any} */ (pushy)._at("/auth"), {
        method: "POST", credentials: "include", signal: AbortSignal.timeout(10_000),
        headers: /** @type {any} */ (typeof headers === "function" ? await headers() : headers),
        body: new URLSearchParams(form),
      });
      const { status, ok } = response, body = await response.text();
      /** @type {any} */
      let answer;
      try {
        answer = JSON.parse(body);
      } catch {
        // for example a login page
      }
      const { batch, channels } = answer ?? {};
      if (batch > 1) size = Math.min(batch, most);
      else if (ok && answer !== undefined && !channels) size = 1;
      if (!ok || answer === undefined) return fail({ status, body });
      if (!many) return asked[0][2](answer);
      if (!channels) return asked.filter(wanted).forEach((one) => post([one])); // another program answers now
      for (const [{ _key }, , resolve, reject] of asked) {
        const { error: message, code, status = 403 } = channels[_key] ?? {};
        if (!message) resolve(channels[_key]);
        else reject({ status, body: JSON.stringify({ error: { code, message } }), _group: group });
      }
    } catch (/** @type {any} */ error) {
      fail({ ...error, message: error?.message });
    }
  };

  const flush = async () => {
    timer = undefined;
    const { socketId } = pushy;
    queue = queue.filter(wanted);
    if (!size && first === socketId) return;
    // A refusal may not say it, so a second request is sent before each channel has its own.
    for (let n = 0; n < 2 && !size && queue[0]; n++) {
      first = socketId;
      await post(queue.splice(0, 1));
      if (first !== socketId) return; // a request of another connection decides
      queue = queue.filter(wanted);
    }
    first = undefined;
    while (queue[0]) post(queue.splice(0, size || 1));
  };

  return (channel) => new Promise((resolve, reject) => {
    queue.push([channel, channel._turn, resolve, reject]);
    if (size > 1) timer ??= setTimeout(flush, gather);
    else flush();
  });
}
