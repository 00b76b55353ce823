// The transports. All carry the same messages in both directions. A link reports once that
// it has ended, and nothing after that.
import { isFinal } from "./retry.js";

/**
 * The callbacks of a link.
 * @typedef {object} Events
 * @property {(text: string) => boolean | void} _message returns whether it was a message of the protocol
 * @property {() => void} _alive the server has sent something other than a message
 * @property {(text: string) => void} _oversized the server refused this message because of its size
 * @property {(code: number, reason: string, answer?: Answer) => void} _close with a close code, or the
 *   status of the HTTP answer with which the server refused the client
 */

/**
 * The HTTP answer that ended a link.
 * @typedef {object} Answer
 * @property {string | null} [_retryAfter]
 * @property {string} [_body]
 */

/**
 * @typedef {object} Link
 * @property {(text: string) => void} _send
 * @property {(code?: number) => void} _close does not call `_close` of the Events
 */

/**
 * @typedef {(at: (path: string) => string, how: import("../pushy.d.ts").Options, on: Events) => Link} Opener
 */

/**
 * A link over a WebSocket or over sockjs-client, which has the same interface.
 * @param {any} socket
 * @param {Events} on
 * @returns {Link}
 */
function over(socket, on) {
  let opened = false;
  socket.onopen = () => (opened = true);
  socket.onmessage = (/** @type {any} */ e) => on._message(e.data);
  socket.onheartbeat = on._alive; // sockjs-client's
  // A close follows. After the opening, browsers report in this way a frame that they cannot read.
  socket.onerror = () => opened && links._unreadable++;
  // sockjs-client closes with 1002 when it cannot reach the server.
  socket.onclose = (/** @type {any} */ e) => on._close(e.code === 1002 && !opened ? 1006 : e.code, e.reason);
  return {
    _send: (text) => socket.send(text),
    _close(code = 0) {
      socket.onmessage = socket.onclose = null;
      socket.close(code > 4000 ? code : 1000); // browsers accept few codes
    },
  };
}

/** @type {Opener} */
const websocket = (at, how, on) =>
  over(new (how.WebSocket ?? /** @type {any} */ (WebSocket))(at("/socket/websocket").replace(/^http/, "ws") + (links._unreadable > 1 ? "&deflate=0" : "")), on);

/** @type {Opener} */
const sockjs = (at, how, on) => over(new /** @type {any} */ (how.SockJS)(at("/socket")), on);

/** The maximum length of the messages in one request; a server accepts 64 KiB. */
const batch = 16_000;

/** After an answer that ends sooner without a message the client pauses; each further pause is longer. */
const brief = 1000;

/** More than this number of consecutive brief answers end the session. */
const mostBrief = 4;

/**
 * SockJS over fetch: consecutive requests that receive frames, and other requests that send
 * messages. Only the client and the server know the session's id. Something other than the
 * server can answer, such as a gateway with its own page: anything that is not SockJS ends
 * the link, so that no request is repeated immediately.
 * @param {string} receiver
 * @returns {Opener}
 */
const http = (receiver) => (at, how, on) => {
  const request = how.fetch ?? fetch;
  const session = crypto.getRandomValues(new Uint32Array(4)).join("-");
  const aborter = new AbortController();
  /** @type {string[]} */
  const outbox = [];
  let ended = false, opened = false, sending = false, room = batch;

  /** @param {number} code @param {string} [reason] @param {Answer} [answer] */
  const end = (code, reason = "", answer) => {
    aborter.abort();
    if (ended) return;
    ended = true;
    on._close(code, reason, answer);
  };

  /** @param {string} path @param {string} [body] @returns {Promise<Response>} */
  const post = (path, body) => request(at(`/socket/c/${session}/${path}`), {
    method: "POST", body, credentials: "include", cache: "no-store", redirect: "manual", signal: aborter.signal,
  });

  /** The answer does not have the status that SockJS requires. @param {Response} response */
  const refused = async (response) => {
    const { status, headers } = response;
    const denied = !opened && isFinal(status);
    const body = denied ? (await response.text().catch(() => "")).slice(0, 1000) : undefined;
    end(denied ? status : 1006, `HTTP ${status || "redirect"}`, { _retryAfter: headers.get("Retry-After"), _body: body });
  };

  /** @param {string} text */
  const foreign = (text) => end(1006, `not an answer from pushy: ${text.slice(0, 60)}`);

  /**
   * @param {string} line
   * @returns {boolean | void} whether it opened the session or contained a message of the protocol
   */
  const frame = (line) => {
    /** @type {any} */
    const data = line[1] === "[" && JSON.parse(line.slice(1));
    if (line === "o" && !opened) return (opened = true);
    if (line[0] === "a" && data) return data.map(on._message).includes(true);
    if (line[0] === "c" && data) end(.../** @type {[number, string]} */ (data));
    // The session has ended without notice, in a proxy for example, and a new one has begun.
    else if (line === "o") end(1006);
    else if (!/^h+$/.test(line)) foreign(line);
  };

  const receive = async () => {
    let fruitless = 0;
    while (!ended) {
      const began = Date.now();
      const response = await post(receiver);
      if (response.status !== 200) return refused(response);
      const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
      const decoder = new TextDecoder();
      let rest = "", frames = 0, moved = false;
      for (;;) {
        const { done, value } = await reader.read();
        if (ended) return;
        // An incomplete frame is left if the answer was cut off. Other bytes are not from SockJS.
        if (rest && (done || !/^[ohac]/.test(rest))) return foreign(rest);
        if (done) break;
        on._alive();
        const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
        rest = /** @type {string} */ (lines.pop());
        frames += lines.length;
        for (const line of lines) if (!ended && frame(line)) moved = true;
      }
      const took = Date.now() - began;
      fruitless = moved || took >= brief ? 0 : fruitless + 1;
      if (!frames || fruitless > mostBrief) end(1006, "not an answer from pushy");
      else if (fruitless) await new Promise((done) => setTimeout(done, brief * fruitless - took));
    }
  };

  const flush = async () => {
    if (sending) return;
    sending = true;
    while (outbox.length && !aborter.signal.aborted) {
      let size = 0, count = 0;
      while (count < outbox.length && (!count || size + outbox[count].length < room)) size += outbox[count++].length;
      const texts = outbox.splice(0, count);
      const response = await post("xhr_send", JSON.stringify(texts));
      if (response.status === 413 && count > 1) {
        outbox.unshift(...texts); // none of them was delivered: send fewer at a time
        room = size / 2;
      } else if (response.status === 413) on._oversized(texts[0]);
      else if (response.status !== 204) return refused(response);
    }
    sending = false;
    // The server must have time to carry out the last messages.
    if (ended) setTimeout(() => aborter.abort(), brief);
  };

  const lost = (/** @type {unknown} */ error) => end(1006, `${error}`);
  /** @type {Link} */
  const link = {
    _send(text) {
      outbox.push(text);
      flush().catch(lost);
    },
    _close(code) {
      ended = true;
      if (code !== 1000 || !sending) aborter.abort();
    },
  };
  receive().catch(lost);
  return link;
};

/**
 * The transports, and how often a browser could not read a frame of an open WebSocket: something in
 * the network may break compressed messages, so from the second time on the client asks for none.
 */
export const links = /** @type {Record<string, Opener> & {_unreadable: any}} */ (/** @type {any} */ ({ _unreadable: 0, websocket, streaming: http("xhr_streaming"), polling: http("xhr"), sockjs }));
