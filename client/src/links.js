// The ways to the server. Each carries the same texts both ways; a link says
// once that it has ended, and nothing after.

/**
 * What a link tells of.
 * @typedef {object} Events
 * @property {(text: string) => void} message
 * @property {() => void} alive a sign of life that is no message
 * @property {(code: number, reason: string) => void} close
 */

/**
 * @typedef {object} Link
 * @property {(text: string) => void} send
 * @property {(code?: number, reason?: string) => void} close without a `close` of its own
 */

/**
 * @typedef {(at: (path: string) => string, how: import("../pushy.d.ts").Options, on: Events) => Link} Opener
 */

/**
 * What a WebSocket and sockjs-client have in common.
 * @param {any} socket
 * @param {Events} on
 * @returns {Link}
 */
function over(socket, on) {
  socket.onmessage = (/** @type {any} */ e) => on.message(e.data);
  socket.onheartbeat = on.alive; // sockjs-client's
  socket.onerror = () => {}; // a close follows; in node an error without a listener would throw
  socket.onclose = (/** @type {any} */ e) => on.close(e.code, e.reason);
  return {
    send: (text) => socket.send(text),
    close(code = 1000, reason) {
      socket.onmessage = socket.onclose = null;
      socket.close(code, reason);
    },
  };
}

/** @type {Opener} */
const websocket = (at, how, on) =>
  over(new (how.WebSocket ?? WebSocket)(at("/websocket").replace(/^http/, "ws")), on);

/** @type {Opener} */
const sockjs = (at, how, on) => over(new /** @type {any} */ (how.SockJS)(at("")), on);

/** Texts longer than this together do not share a request: a server takes 64 KiB. */
const batch = 16_000;

/**
 * SockJS over fetch: requests that bring frames, one after another, and others
 * that take messages there. The session's id is a secret of the two.
 * @param {string} receiver
 * @returns {Opener}
 */
const http = (receiver) => (at, how, on) => {
  const request = how.fetch ?? fetch;
  const session = [...crypto.getRandomValues(new Uint8Array(20))].map((byte) => (byte % 36).toString(36)).join("");
  const aborter = new AbortController();
  /** @type {string[]} */
  const outbox = [];
  let ended = false, opened = false, sending = false;

  /** @param {number} code @param {string} reason */
  const end = (code, reason) => {
    if (ended) return;
    link.close();
    on.close(code, reason);
  };

  /** @param {string} path @param {string} [body] */
  const post = async (path, body) => {
    const response = await request(at(`/c/${session}/${path}`), {
      method: "POST", body, credentials: "include", cache: "no-store", signal: aborter.signal,
    });
    if (!response.ok) end(response.status === 413 ? 1009 : 1006, `HTTP ${response.status}`);
    return response;
  };

  const receive = async () => {
    while (!ended) {
      const { body } = await post(receiver);
      const reader = /** @type {ReadableStream<Uint8Array>} */ (body).getReader();
      const decoder = new TextDecoder();
      let rest = "", frames = 0;
      for (;;) {
        const { done, value } = await reader.read();
        if (done || ended) break;
        on.alive();
        const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
        rest = /** @type {string} */ (lines.pop());
        frames += lines.length;
        for (const line of lines) {
          const data = line[1] === "[" && JSON.parse(line.slice(1));
          // A session that ended unseen, by a proxy say, has a new one in its place.
          if (line[0] === "o" && opened) end(1006, "");
          opened ||= line[0] === "o";
          if (line[0] === "a") data.forEach(on.message);
          if (line[0] === "c") end(data[0], data[1]);
        }
      }
      // Nothing at all is no answer of a server that will have more to say.
      if (!frames) end(1006, "");
    }
  };

  const flush = async () => {
    if (sending) return;
    sending = true;
    while (outbox.length && !ended) {
      let size = 0, count = 0;
      while (count < outbox.length && (!count || size + outbox[count].length < batch)) size += outbox[count++].length;
      await post("xhr_send", JSON.stringify(outbox.splice(0, count)));
    }
    sending = false;
  };

  const lost = () => end(1006, "");
  /** @type {Link} */
  const link = {
    send(text) {
      outbox.push(text);
      flush().catch(lost);
    },
    close() {
      ended = true;
      aborter.abort();
    },
  };
  receive().catch(lost);
  return link;
};

/** @type {Record<string, Opener>} */
export const links = { websocket, streaming: http("xhr_streaming"), polling: http("xhr"), sockjs };
