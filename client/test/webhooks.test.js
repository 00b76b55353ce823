// The example of a receiver of webhooks, which uses the library of Standard Webhooks.
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { copyFileSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { run } from "./processes.js";

const key = Buffer.from("thirty-two bytes of a new secret");
const secret = `whsec_${key.toString("base64")}`;
let folder, receiver, lines, url;

before(async () => {
	folder = mkdtempSync(join(tmpdir(), "webhooks-"));
	copyFileSync(fileURLToPath(new URL("../../examples/webhooks/receiver.mjs", import.meta.url)), join(folder, "receiver.mjs"));
	symlinkSync(fileURLToPath(new URL("../node_modules", import.meta.url)), join(folder, "node_modules"), "junction");
	receiver = run(process.execPath, [join(folder, "receiver.mjs")], {
		env: { ...process.env, PUSHY_WEBHOOK_SECRET: secret, PORT: "0" },
		stdio: ["ignore", "pipe", "inherit"],
	});
	lines = createInterface({ input: receiver.stdout })[Symbol.asyncIterator]();
	url = (await receiver.started(lines.next())).value.replace("listening on ", "");
});

after(async () => {
	await receiver?.end();
	rmSync(folder, { recursive: true });
});

// post sends a request as package webhook does, with the signatures of several keys, and returns
// the status.
async function post(events, { id = "msg_1", at = Math.floor(Date.now() / 1000), keys = [key], change = (s) => s } = {}) {
	const body = JSON.stringify({ type: "pushy.events", timestamp: new Date().toISOString(), data: { events } });
	const signatures = keys.map((k) => `v1,${createHmac("sha256", k).update(`${id}.${at}.${body}`).digest("base64")}`);
	const response = await fetch(url, {
		method: "POST",
		headers: {
			"Content-Type": "application/json",
			"Webhook-Id": id,
			"Webhook-Timestamp": String(at),
			"Webhook-Signature": signatures.join(" "),
		},
		body: change(body),
	});
	return response.status;
}

test("the receiver handles each event once", async () => {
	const joined = { id: "e.1", event: "member.joined", channel: "private-é", memberId: "m1", user: "42", at: 1 };
	assert.equal(await post([joined]), 204);
	assert.equal(await post([joined, { id: "e.2", event: "channel.vacated", channel: "private-é", at: 2 }], { id: "msg_2" }), 204);
	assert.equal((await lines.next()).value, "member.joined private-é 42");
	assert.equal((await lines.next()).value.trim(), "channel.vacated private-é");
});

test("the receiver accepts one of several signatures, and refuses what it cannot verify", async () => {
	const other = Buffer.from("thirty-two bytes of another one.");
	assert.equal(await post([], { keys: [other, key] }), 204);
	assert.equal(await post([], { keys: [other] }), 401);
	assert.equal(await post([], { change: (body) => `${body} ` }), 401);
	assert.equal(await post([], { at: Math.floor(Date.now() / 1000) - 301 }), 401);
	assert.equal(await post([], { change: (body) => body.padEnd((1 << 20) + 1) }), 413);
});
