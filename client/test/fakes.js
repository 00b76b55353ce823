// A server in memory and a clock that tests turn, for the client alone.
import { Pushy } from "../src/module.js";

/** Waits until what is due has run. */
export const flush = () => new Promise(setImmediate);

/**
 * Sets up t's fake clock and returns how to turn it: in small steps, since all
 * timers of a step see its end. sleep is time in which no timer runs.
 */
export function clock(t) {
  t.mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"], now: 1_700_000_000_000 });
  t.mock.method(Math, "random", () => 0.5);
  const now = Date.now;
  let slept = 0;
  Date.now = () => now() + slept;
  const turn = async (ms) => {
    await flush();
    for (let left = ms; left >= 0; left -= 500) {
      t.mock.timers.tick(Math.min(left, 500));
      await flush();
    }
  };
  turn.sleep = (ms) => (slept += ms);
  return turn;
}

/** One side of a WebSocket; the test is the other. */
class Socket {
  sent = [];
  closed = false;
  constructor(url) {
    this.url = url;
  }
  send(text) {
    this.sent.push(JSON.parse(text));
  }
  close() {
    this.closed = true;
  }
  receive(event, data, channel, offset) {
    this.onmessage?.({ data: JSON.stringify({ event, channel, data, offset }) });
  }
  connect(socketId = "11111111-2222-4333-8444-555555555555") {
    this.receive("pushy:connect", { socketId, protocol: "rawwebsocket" });
  }
  lose(code = 1006, reason = "") {
    this.onclose?.({ code, reason });
  }
  /** The last command of that name, as the client sent it. */
  last(command) {
    return this.sent.findLast((message) => message.command === command);
  }
  /** Lets the client into a channel. */
  welcome(channel, presence, more) {
    this.receive("pushy:subscription-success", { channel, memberId: "me", presence, ...more, id: this.last("subscribe")?.id });
  }
  /** The last subscribe command, without what all of them have. */
  asked() {
    const { hold, presence, ...data } = this.last("subscribe").data;
    return data;
  }
}

/**
 * A client whose WebSockets are the test's: sockets holds them, the newest last.
 * HTTP fails unless the test brings a fetch.
 */
export function client({ url = "http://127.0.0.1/pushy", authHandler, ...options } = {}) {
  const sockets = [];
  const pushy = new Pushy(url, authHandler, {
    transports: ["websocket"],
    WebSocket: class extends Socket {
      constructor(url) {
        super(url);
        sockets.push(this);
      }
    },
    fetch: async () => {
      throw new TypeError("no network");
    },
    ...options,
  });
  return { pushy, sockets, socket: () => sockets.at(-1), events: record(pushy, "connect", "disconnect") };
}

/** The names of what an emitter has told, in order, with their first argument if it is plain. */
export function record(emitter, ...names) {
  const told = [];
  for (const name of names) emitter.bind(name, (first) => told.push(typeof first === "string" ? `${name} ${first}` : name));
  return told;
}

/** The names of what a channel has told. */
export const told = (channel) =>
  record(channel, "subscribe", "unsubscribe", "subscribe-error", "auth-error", "pushy:member-added", "pushy:member-quit", "pushy:presence-sync");

/** A client that is connected. */
export async function connected(options) {
  const all = client(options);
  all.pushy.connect();
  await flush();
  all.socket().connect("first");
  return all;
}

/** An auth endpoint that gives the answers in turn, the last one for ever. */
export function endpoint(...answers) {
  const asked = [];
  return {
    asked,
    fetch: async (url, { body, headers, method, credentials }) => {
      asked.push({ url, method, credentials, headers, ...Object.fromEntries(body) });
      const answer = answers.length > 1 ? answers.shift() : answers[0];
      if (answer instanceof Error) throw answer;
      const [status, text] = typeof answer === "number" ? [answer, "no"] : [200, answer];
      return new Response(text, { status });
    },
  };
}

/** What is written to the console meanwhile. */
export function warnings(t) {
  const all = [];
  t.mock.method(console, "warn", (...what) => all.push(what.join(" ")));
  return all;
}

/** A position in an answer, with more fields. */
export const place = (epoch, offset, more) => ({ epoch, offset, ...more });

/** A subscribed client, and what its channel has told. */
export async function subscribed(t, answer, options) {
  const turn = clock(t);
  const all = await connected();
  const news = all.pushy.channel("news", options), got = [];
  news.on("said", ({ n }, { offset }) => got.push([n, offset]));
  news.on("pushy:gap", (gap) => got.push(["gap", gap.reason]));
  news.on("subscribe", (members, { recovered, replay }) => got.push(["subscribe", recovered, replay]));
  news.subscribe();
  all.socket().welcome("news", undefined, answer);
  const said = (n, offset) => all.socket().receive("said", { n }, "news", offset);
  let ids = 0;
  const blink = async () => {
    all.socket().lose();
    all.pushy.connect();
    await flush();
    all.socket().connect(`again-${++ids}`);
    await flush();
  };
  return { ...all, turn, news, got, said, blink, clear: () => got.splice(0) };
}
