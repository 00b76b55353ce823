// The client's position in a channel that keeps events, against a model of the server: whatever is
// cut, lost, sent twice or late, a page receives each event once and in order, or is told of a gap.
// PUSHY_SEED runs one seed.
import assert from "node:assert/strict";
import { test } from "node:test";
import { clock, client, flush } from "./fakes.js";

/** Random numbers that depend on seed only (mulberry32). */
function random(seed) {
  return (below) => {
    seed = (seed + 0x6d2b79f5) | 0;
    let n = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    n = (n + Math.imul(n ^ (n >>> 7), 61 | n)) ^ n;
    return ((n ^ (n >>> 14)) >>> 0) % below;
  };
}

const size = 12; // events that the server keeps
const large = 10; // events that it replays at most

/** A server with one channel, and its only client's connection. */
class Server {
  logs = 1;
  log = []; // of the present epoch, all events since its beginning
  forgotten = 0; // number of events at its beginning that are not kept
  frames = []; // sent and not received yet
  member = false;
  recent = []; // events that this connection was sent since the last break, which it may be sent again

  get epoch() {
    return `e${this.logs}`;
  }

  /** Carries out the commands that the client has sent over socket. */
  read(socket) {
    for (const { command, data, id } of socket.sent.splice(0)) {
      if (command === "subscribe") this.subscribe(socket, data, id);
      else if (command === "unsubscribe") {
        this.member = false;
        this.frames.push(["pushy:subscription-end", { channel: "news", id }]);
      }
    }
  }

  subscribe(socket, { since, was = [], partial, rewind }, id) {
    this.member = true;
    this.recent = [];
    const top = this.log.length, kept = this.log.slice(this.forgotten);
    const mine = ({ except }) => except !== socket.id && !was.includes(except);
    let reason, replay;
    if (since) {
      assert.ok(Number.isInteger(since.offset) && since.offset >= 0, "a position");
      assert.ok(was.length <= 8, "at most 8 earlier ids");
      if (since.epoch !== this.epoch) reason = "epoch";
      else if (since.offset > top) reason = "ahead";
      else if (since.offset < this.forgotten) reason = "trimmed";
      else if (top - since.offset > large) reason = "large";
      else replay = kept.filter(({ offset }) => offset > since.offset);
    }
    const recovered = since && !reason;
    if (!recovered) {
      replay = rewind ? kept.slice(-rewind) : partial && reason === "trimmed" ? kept.slice(-large) : [];
    }
    replay = replay.filter(mine);
    this.frames.push(["pushy:subscription-success", {
      channel: "news", memberId: "me", epoch: this.epoch, offset: top, recovered, reason, replay: since || rewind ? replay.length : undefined, id,
    }]);
    for (const event of replay) this.send(event);
  }

  send({ offset, n }) {
    this.frames.push(["said", { n, epoch: this.epoch }, offset]);
    this.recent.push(this.frames.at(-1));
  }

  publish(n, except, socket) {
    const event = { offset: this.log.length + 1, n, except };
    this.log.push(event);
    this.forgotten = Math.max(this.forgotten, this.log.length - size);
    if (this.member && except !== socket?.id) this.send(event);
  }

  /** Another log begins. The client is told if it is connected. */
  begin(offset) {
    this.logs++;
    this.log = Array.from({ length: offset }, (_, n) => ({ offset: n + 1, n: `before ${n}` }));
    this.forgotten = offset;
    this.recent = [];
    if (this.member) this.frames.push(["pushy:resync", { reason: "restarted", epoch: this.epoch, offset }]);
  }

  cut() {
    this.frames = [];
    this.member = false;
  }
}

/** Checks what the page receives. */
class Page {
  run; // the last event without a gap since: {epoch, offset}, offset undefined before the first one of a replay
  breaks = 0;
  gaps = 0;
  errors = [];
  constructor(server, logs) {
    Object.assign(this, { server, logs });
  }

  /** A listener. What it throws would not reach the test. */
  hears(listener) {
    return (...args) => {
      try {
        listener.apply(this, args);
      } catch (error) {
        this.errors.push(error);
      }
    };
  }

  subscribed({ epoch, offset, recovered, replay }) {
    if (recovered) return assert.equal(this.run.epoch, epoch, "it goes on in the same log");
    if (this.run) this.breaks++;
    this.run = { epoch, offset: replay ? undefined : offset };
  }

  received({ n, epoch }, offset) {
    const { run } = this, log = this.logs.get(epoch);
    assert.equal(epoch, run.epoch);
    if (run.offset !== undefined) {
      assert.ok(offset > run.offset, `${n} at ${offset}, after ${run.offset}`);
      for (const { n: missed, except } of log.slice(run.offset, offset - 1)) assert.ok(except, `${missed} is missing before ${n}`);
    }
    run.offset = offset;
  }
}

async function play(t, seed, pick) {
  const turn = clock(t), { pushy, sockets } = client({ minDelay: 1_000_000, maxDelay: 1_000_000 });
  const server = new Server(), logs = new Map(), page = new Page(server, logs);
  const [way, leaves] = [[{}, { rewind: 5 }, { partial: true }][pick(3)], pick(2) === 0];
  const news = pushy.channel("news", way);
  let connections = 0, events = 0;
  news.on("subscribe", page.hears((_, recovery) => page.subscribed(recovery)));
  news.on("pushy:resync", ({ epoch, offset }) => {
    page.breaks++;
    page.run = { epoch, offset };
  });
  news.on("pushy:gap", () => page.gaps++);
  news.on("said", page.hears((data, { offset }) => page.received(data, offset)));
  news.subscribe();

  const socket = () => sockets.at(-1);
  const connect = async () => {
    pushy.connect();
    await flush();
    socket().id = `conn-${++connections}`;
    socket().connect(socket().id);
    await flush();
  };
  const deliver = async (most) => {
    server.read(socket());
    for (; most && server.frames.length; most--) {
      const [event, data, offset] = server.frames.shift();
      socket().receive(event, data, event.startsWith("pushy:sub") ? undefined : "news", offset);
      await flush();
      server.read(socket());
    }
  };
  const steps = {
    async publish() {
      for (let n = pick(4); n >= 0; n--) server.publish(++events, pick(3) ? undefined : socket().id, socket());
    },
    async deliver() {
      await deliver(1 + pick(8));
    },
    async cut() {
      if (pushy.connected) {
        server.cut();
        socket().lose();
      }
    },
    async connect() {
      if (!pushy.connected) await connect();
    },
    async repeat() { // an event arrives once more, or late
      if (server.member && server.recent.length) server.frames.push(server.recent[pick(server.recent.length)]);
    },
    async forget() {
      if (!pick(3)) server.forgotten = Math.max(server.forgotten, server.log.length - pick(5));
    },
    async begin() {
      if (pick(6)) return;
      logs.set(server.epoch, server.log);
      server.begin(pick(3) ? 0 : pick(30));
      logs.set(server.epoch, server.log);
    },
    async leave() {
      if (!leaves) return;
      page.run = undefined;
      news.unsubscribe().subscribe();
    },
  };
  const names = ["publish", "publish", "publish", "deliver", "deliver", "deliver", "deliver", "cut", "connect", "connect", "repeat", "forget", "begin", "leave", "leave"];
  logs.set(server.epoch, server.log);
  await connect();
  for (let n = 0; n < 150; n++) {
    await steps[names[pick(names.length)]]();
    if (page.errors.length) throw page.errors[0];
  }

  // At last it is connected, and everything arrives.
  await steps.connect();
  server.publish(++events, undefined, socket());
  await deliver(1000);
  assert.equal(server.frames.length, 0);
  if (page.errors.length) throw page.errors[0];
  assert.deepEqual(page.run, { epoch: server.epoch, offset: server.log.length }, "the page has the last event");
  await turn(6000);
  if (!leaves) assert.equal(page.gaps, page.breaks, "each break is told once");
  pushy.disconnect();
  t.mock.timers.reset();
  t.mock.restoreAll();
  return { events, connections, breaks: page.breaks };
}

test("random cuts, repeated and late events, forgotten events and new logs", { timeout: 300_000 }, async (t) => {
  const one = Number(process.env.PUSHY_SEED), seeds = one ? [one] : Array.from({ length: 200 }, (_, n) => n + 1);
  const all = { events: 0, connections: 0, breaks: 0 };
  for (const seed of seeds) {
    try {
      const counts = await play(t, seed, random(seed));
      for (const what of Object.keys(all)) all[what] += counts[what];
    } catch (error) {
      error.message += ` (PUSHY_SEED=${seed})`;
      throw error;
    }
  }
  t.diagnostic(JSON.stringify(all));
  if (!one) assert.ok(all.events > 12_000 && all.connections > 1200 && all.breaks > 200, JSON.stringify(all));
});
