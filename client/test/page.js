// A page in memory, for the bindings: a document, and a server that answers the client's subscriptions.
import assert from "node:assert/strict";
import { Window } from "happy-dom";
import { client, clock, flush } from "./fakes.js";

const window = new Window({ url: "http://127.0.0.1/" });

/** Makes the globals that React and Svelte look for, or removes them, as on a server that renders pages. */
export function browse(on) {
  for (const name of ["document", "Element", "HTMLElement", "HTMLIFrameElement", "HTMLMediaElement", "Node", "Text", "Comment", "Event", "SVGElement"]) {
    if (on) globalThis[name] = window[name];
    else delete globalThis[name];
  }
  globalThis.navigator ??= window.navigator; // node 20 has none
  if (on) globalThis.window = globalThis;
  else delete globalThis.window;
}

/** A root element of the page. */
export const root = () => window.document.body.appendChild(window.document.createElement("main"));

/**
 * A connected client, whose server answers each subscription, unless answers is false. in is the set of
 * channels to which it is subscribed, and commands has the names of the commands that it has sent.
 */
export async function room(t, { answers = true, presence, options } = {}) {
  const turn = clock(t), wrong = [];
  t.mock.method(console, "error", (...what) => wrong.push(what.join(" ")));
  t.after(() => assert.deepEqual(wrong.filter((text) => !text.includes("MockTimers API is an experimental")), []));
  const all = client(options), entered = new Set();
  let seen = 0;
  /** Answers what was sent meanwhile. */
  const serve = async () => {
    await turn(1);
    const socket = all.socket();
    for (; seen < socket.sent.length; seen++) {
      const { command, data, id } = socket.sent[seen];
      if (command === "subscribe") {
        entered.add(data.channel);
        socket.receive("pushy:subscription-success", { channel: data.channel, memberId: "me", presence, id });
      } else if (command === "unsubscribe") {
        entered.delete(data.channel);
        socket.receive("pushy:subscription-end", { channel: data.channel, id });
      }
    }
    await flush();
  };
  const again = async (id = "first") => {
    all.pushy.connect();
    await flush();
    seen = 0;
    entered.clear();
    all.socket().connect(id);
    if (answers) await serve();
  };
  await again();
  return {
    ...all,
    turn,
    in: entered,
    serve,
    again,
    commands: () => all.sockets.flatMap(({ sent }) => sent.map(({ command, data }) => `${command} ${data?.channel}`)),
  };
}
