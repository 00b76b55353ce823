#!/usr/bin/env node
// Calls the signed API of pushy, with nothing but node 18 or newer.
//
//     export PUSHY_SECRET_KEY=…  PUSHY_URL=https://rt.example.com/pushy
//     pushy_api.mjs publish CHANNEL EVENT [JSON]   publishes an event
//     pushy_api.mjs publish-all <FILE              publishes the events of a JSON array
//     pushy_api.mjs kick TARGET [REASON]           TARGET is user:ID, conn:ID or channel:NAME
//     pushy_api.mjs list CALL [JSON]               all pages of channels, members, connections or bans
//     pushy_api.mjs call CALL [JSON]               any other call
//
// With PUSHY_ID, a request that was carried out under that id is not carried out again. The
// answer is printed as JSON. PROTOCOL.md, section 15, describes the calls. In a program:
//
//     const pushy = new Pushy("https://rt.example.com/pushy", process.env.PUSHY_SECRET_KEY);
//     await pushy.publish("lobby", "news", { text: "Hello" });
import { createHmac, randomBytes } from "node:crypto";
import { readFileSync, realpathSync } from "node:fs";
import { fileURLToPath } from "node:url";

const tries = 6;

/** A request that the server has refused, or that it has not answered. */
export class PushyError extends Error {
  /** A status of 0: there was no answer, so it is not known whether the request was carried out. */
  constructor(message, status, answer) {
    super(message);
    this.status = status;
    this.answer = answer;
  }
}

export class Pushy {
  #url;
  #secret;
  #keyId;

  constructor(url, secret) {
    this.#url = url.replace(/\/+$/, "");
    this.#secret = secret;
    this.#keyId = this.#hmac("pushy2-key-id").slice(0, 8);
  }

  /** Publishes an event. With the same id, it is published once, however often this is called. */
  publish(channel, event, data, id) {
    return this.publishAll([{ channels: [channel], event, data }], id);
  }

  /** Publishes at most 100 events. */
  publishAll(events, id) {
    return this.call("publish", { events }, id);
  }

  /** Closes the connections of "user:42", or ends the subscriptions of "channel:lobby"; until makes it a ban. */
  kick(target, { reason, until, id } = {}) {
    return this.call("kick", { target, reason, until }, id);
  }

  /** All pages of "channels", "members", "connections" or "bans". What only the silent nodes have is missing. */
  async list(name, query = {}) {
    const items = [];
    const silent = new Set();
    let after = query.after;
    do {
      const page = await this.call(name, { limit: 1000, ...query, after });
      items.push(...page[name]);
      page.silent?.forEach((node) => silent.add(node));
      after = page.next;
    } while (after);
    return { [name]: items, silent: [...silent] };
  }

  /** Sends a request until it succeeds or finally fails. All tries have the same id. */
  async call(name, value, id = randomBytes(16).toString("hex")) {
    const body = JSON.stringify(value);
    for (let attempt = 1; ; attempt++) {
      const { status, wait, text } = await this.#post(`/api/${name}`, id, body);
      let answer;
      try {
        answer = JSON.parse(text);
      } catch {
        // not an answer of pushy, or not all of it
      }
      if (status === 200 && answer) return answer;
      const error = answer?.error;
      const again =
        status < 300 || // no answer, or not all of it
        [408, 425, 429].includes(status) ||
        (status >= 500 && status !== 501 && status !== 505) ||
        (status === 403 && error?.code === "501"); // signed before the server was started
      if (!again || attempt === tries || wait > 60_000) {
        const message = error?.message ?? text.slice(0, 400);
        throw new PushyError(status ? `status ${status}: ${message}` : message, status, answer);
      }
      const backoff = Math.random() * Math.min(5000, 100 * 2 ** attempt);
      await new Promise((resolve) => setTimeout(resolve, Math.max(wait, backoff)));
    }
  }

  /** Returns the status, or 0; the milliseconds of Retry-After; and the body. */
  async #post(path, id, body) {
    try {
      const response = await fetch(this.#url + path, {
        method: "POST",
        headers: {
          "Content-Type": "application/json",
          "Pushy-Signature": this.signature(Math.floor(Date.now() / 1000), id, path, body),
        },
        body,
        redirect: "manual",
        signal: AbortSignal.timeout(15_000),
      });
      const wait = retryAfter(response.headers.get("Retry-After") ?? "");
      return { status: response.status, wait, text: await response.text() };
    } catch (error) {
      return { status: 0, wait: 0, text: `no answer: ${error.cause?.message || error.message}` };
    }
  }

  signature(time, id, path, body) {
    const head = `pushy2-request\n${this.#keyId}\n${time}\n${id}\n${path}\n`;
    return `v2 ${this.#keyId} ${time} ${id} ${this.#hmac(head, body)}`;
  }

  /** A token with which a client can subscribe. claims is the JSON of the claims (PROTOCOL.md, section 6). */
  token(claims) {
    const part = Buffer.from(claims).toString("base64url");
    return `v2.${this.#keyId}.${part}.${this.#hmac(`pushy2-token\n${this.#keyId}\n${part}`)}`;
  }

  #hmac(...parts) {
    const mac = createHmac("sha256", this.#secret);
    parts.forEach((part) => mac.update(part));
    return mac.digest("hex");
  }
}

/** Returns milliseconds. */
function retryAfter(header) {
  if (/^\d+$/.test(header)) return 1000 * header;
  return Math.max(0, Date.parse(header) - Date.now()) || 0;
}

async function main([command, ...args]) {
  const { PUSHY_SECRET_KEY: secret, PUSHY_URL: url, PUSHY_ID } = process.env;
  if (!secret) throw new Error("PUSHY_SECRET_KEY is not set");
  const pushy = new Pushy(url || "http://127.0.0.1:8123/pushy", secret);
  const id = PUSHY_ID || undefined;
  const json = (text = "{}") => JSON.parse(text);
  switch (`${command} ${args.length}`) {
    case "publish 2":
    case "publish 3":
      return pushy.publish(args[0], args[1], json(args[2]), id);
    case "publish-all 0":
      return pushy.publishAll(json(readFileSync(0, "utf8")), id);
    case "kick 1":
    case "kick 2":
      return pushy.kick(args[0], { reason: args[1], id });
    case "list 1":
    case "list 2":
      return pushy.list(args[0], json(args[1]));
    case "call 1":
    case "call 2":
      return pushy.call(args[0], json(args[1]), id);
  }
  throw new Error("the first lines of this file show how to call it");
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  main(process.argv.slice(2)).then(
    (answer) => console.log(JSON.stringify(answer)),
    (error) => {
      console.error(`pushy_api.mjs: ${error.message}`);
      process.exitCode = 1;
    },
  );
}
