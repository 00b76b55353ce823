// A receiver of pushy's webhooks in JavaScript, with the library of Standard Webhooks:
//
//	npm install standardwebhooks
//	PUSHY_WEBHOOK_SECRET=whsec_… node receiver.mjs
//
// It prints the events. docs/webhooks.md says what each has.
import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const secret = process.env.PUSHY_WEBHOOK_SECRET;
if (!secret) throw new Error("PUSHY_WEBHOOK_SECRET is not set");
const verifier = new Webhook(secret);
const most = 1 << 20; // bytes of a body
const remembered = 2 * 60 * 60 * 1000; // pushy sends an event again for an hour
const handled = new Map(); // when an event was handled, by id

const server = createServer(async (request, response) => {
	const answer = (status) => response.writeHead(status).end();
	if (request.method !== "POST" || request.url !== "/webhooks") return answer(404);
	const chunks = [];
	let size = 0;
	try {
		for await (const chunk of request) {
			size += chunk.length;
			if (size > most) return answer(413);
			chunks.push(chunk);
		}
	} catch {
		return; // the sender has disconnected
	}
	let content;
	try {
		// The signature covers the bytes as they arrived, so verify before you parse.
		content = verifier.verify(Buffer.concat(chunks).toString("utf8"), request.headers);
	} catch {
		return answer(401);
	}
	const now = Date.now();
	for (const [id, at] of handled) {
		if (now - at < remembered) break; // the oldest is the first
		handled.delete(id);
	}
	for (const event of content.data.events) {
		if (handled.has(event.id)) continue;
		handled.set(event.id, now);
		handle(event);
	}
	answer(204); // the next events come after that
});

// handle is what your app does with an event.
function handle(event) {
	console.log(event.event, event.channel ?? "", event.user ?? event.memberId ?? "");
}

server.listen(Number(process.env.PORT ?? 8091), "127.0.0.1", () => {
	console.log(`listening on http://127.0.0.1:${server.address().port}/webhooks`);
});
