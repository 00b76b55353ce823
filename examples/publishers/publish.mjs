#!/usr/bin/env node
// Calls the signed API of pushy, with node 18 or newer and no package.
//
//     export PUSHY_SECRET_KEY=…  PUSHY_URL=https://rt.example.com/pushy
//     publish.mjs one CHANNEL EVENT [JSON]      publishes an event
//     publish.mjs many JSON                     publishes an array of events
//
// With PUSHY_ID, a request that was carried out under that id is not carried out again. The
// answer is printed as JSON. PROTOCOL.md, section 15, describes the API.
import { createHmac, randomBytes } from "node:crypto";
import { realpathSync } from "node:fs";
import { fileURLToPath } from "node:url";

const tries = 6;
const final = (status) => ![408, 425, 429].includes(status) && (status < 500 || status === 501 || status === 505);

export class Pushy {
  #url;
  #secret;
  #keyId;

  constructor(url, secret) {
    this.#url = url.replace(/\/+$/, "");
    this.#secret = secret;
    this.#keyId = this.#hmac("pushy2-key-id").slice(0, 8);
  }

  #hmac(...parts) {
    const mac = createHmac("sha256", this.#secret);
    parts.forEach((part) => mac.update(part));
    return mac.digest("hex");
  }

  signature(time, id, path, body) {
    const head = `pushy2-request\n${this.#keyId}\n${time}\n${id}\n${path}\n`;
    return `v2 ${this.#keyId} ${time} ${id} ${this.#hmac(head, body)}`;
  }

  /** Sends a request until it succeeds or finally fails. All tries have the same id. */
  async call(name, value, id = randomBytes(16).toString("hex")) {
    const path = `/api/${name}`;
    const body = JSON.stringify(value);
    for (let attempt = 1; ; attempt++) {
      let failure;
      let wait = 0;
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
        const text = await response.text();
        if (response.status === 200) return JSON.parse(text);
        failure = new Error(`status ${response.status}: ${text.slice(0, 400)}`);
        failure.final = final(response.status);
        wait = retryAfter(response.headers.get("Retry-After") ?? "");
      } catch (error) {
        failure = new Error(`no answer: ${error.cause?.code ?? error.message}`);
      }
      if (failure.final || attempt === tries) throw failure;
      const backoff = Math.random() * Math.min(5000, 100 * 2 ** attempt);
      await new Promise((resolve) => setTimeout(resolve, Math.max(wait, backoff)));
    }
  }

  publish(channel, event, data, id) {
    return this.publishAll([{ channels: [channel], event, data }], id);
  }

  publishAll(events, id) {
    return this.call("publish", { events }, id);
  }
}

/** Returns milliseconds. */
function retryAfter(header) {
  if (/^\d{1,6}$/.test(header)) return 1000 * header;
  return Math.max(0, Date.parse(header) - Date.now()) || 0;
}

async function main([command, ...args]) {
  const { PUSHY_SECRET_KEY: secret, PUSHY_URL: url = "http://127.0.0.1:8123/pushy", PUSHY_ID } = process.env;
  const id = PUSHY_ID || undefined;
  if (!secret) throw new Error("PUSHY_SECRET_KEY is not set");
  const pushy = new Pushy(url, secret);
  switch (command) {
    case "one":
      return pushy.publish(args[0], args[1], JSON.parse(args[2] ?? "{}"), id);
    case "many":
      return pushy.publishAll(JSON.parse(args[0]), id);
  }
  throw new Error("usage: publish.mjs one|many …; the first lines of the file explain");
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  main(process.argv.slice(2)).then(
    (answer) => console.log(JSON.stringify(answer)),
    (error) => {
      console.error(`publish.mjs: ${error.message}`);
      process.exitCode = 1;
    },
  );
}
