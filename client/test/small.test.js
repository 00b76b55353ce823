// The parts that know nothing of each other.
import assert from "node:assert/strict";
import { test } from "node:test";
import { address } from "../src/address.js";
import { Emitter } from "../src/emitter.js";
import { recall, remember } from "../src/memory.js";
import { delay, isFinal, retryAfter } from "../src/retry.js";

test("retry: anything between half a second and a bound that doubles to 20 s", (t) => {
  const at = (random, failures) => {
    t.mock.method(Math, "random", () => random);
    return delay(failures, {});
  };
  assert.deepEqual([0, 1, 2, 3, 4, 5, 50].map((n) => at(0, n)), Array(7).fill(500));
  assert.deepEqual([0, 1, 2, 3, 4, 5, 50].map((n) => at(1, n)), [1000, 2000, 4000, 8000, 16_000, 20_000, 20_000]);
  assert.equal(at(0.5, 50), 10_250);
});

test("retry: codes that say not to reconnect", () => {
  for (const code of [401, 403, 1002, 1003, 1007, 1008, 1010, 3500, 3501, 3999]) assert.ok(isFinal(code), `${code}`);
  for (const code of [1000, 1001, 1005, 1006, 1009, 1011, 1012, 1013, 1014, 1015, 2010, 3000, 3001, 3008, 3499, 4000, 4001, 4999]) assert.ok(!isFinal(code), `${code}`);
});

test("address: with or without the socket path, with the query", () => {
  for (const [url, websocket] of [
    ["http://h:1", "http://h:1/pushy/socket/websocket?v=2"],
    ["http://h:1/", "http://h:1/pushy/socket/websocket?v=2"],
    ["http://h/pushy", "http://h/pushy/socket/websocket?v=2"],
    ["http://h/pushy/", "http://h/pushy/socket/websocket?v=2"],
    ["http://h/pushy/socket", "http://h/pushy/socket/websocket?v=2"],
    ["http://h/pushy/socket/", "http://h/pushy/socket/websocket?v=2"],
    ["https://h/a/rt?id=1&x=%20#y", "https://h/a/rt/socket/websocket?v=2&id=1&x=%20"],
    ["wss://h/rt", "https://h/rt/socket/websocket?v=2"],
    ["WS://h/rt", "http://h/rt/socket/websocket?v=2"],
    ["WSS://H:444/ws", "https://h:444/ws/socket/websocket?v=2"],
    ["HTTP://h/ws/pushy", "http://h/ws/pushy/socket/websocket?v=2"],
    [new URL("https://h/rt"), "https://h/rt/socket/websocket?v=2"],
    [{ href: "https://h/rt?id=1" }, "https://h/rt/socket/websocket?v=2&id=1"],
  ]) assert.equal(address(url)("/socket/websocket"), websocket, url);
});

/** The globals of a page, for one test. */
function page(t, { baseURI, href, origin }) {
  Object.assign(globalThis, { document: { baseURI }, location: { href }, origin });
  t.after(() => ["document", "location", "origin"].forEach((name) => delete globalThis[name]));
}

// Issue 11, number 31.
test("address: relative to the document's base, whatever kind of document it is", (t) => {
  for (const [globals, url, websocket] of [
    [{ baseURI: "https://h/a/b.html", href: "https://h/a/b.html" }, "/pushy", "https://h/pushy/socket/websocket?v=2"],
    [{ baseURI: "https://h/a/b.html", href: "https://h/a/b.html" }, "ws/pushy", "https://h/a/ws/pushy/socket/websocket?v=2"],
    [{ baseURI: "https://h/a/b.html", href: "https://h/a/b.html" }, "ws", "https://h/a/ws/socket/websocket?v=2"],
    [{ baseURI: "https://h/a/b.html", href: "https://h/a/b.html" }, "//other:8/rt", "https://other:8/rt/socket/websocket?v=2"],
    [{ baseURI: "https://base/x/", href: "https://h/a/b.html" }, "rt", "https://base/x/rt/socket/websocket?v=2"],
    [{ baseURI: "https://parent/x/", href: "about:srcdoc", origin: "https://parent" }, "/pushy", "https://parent/pushy/socket/websocket?v=2"],
    [{ baseURI: "about:blank", href: "about:blank", origin: "https://opener" }, "/pushy", "https://opener/pushy/socket/websocket?v=2"],
    [{ baseURI: "blob:https://h/1-2-3", href: "blob:https://h/1-2-3", origin: "https://h" }, "/pushy", "https://h/pushy/socket/websocket?v=2"],
    [{ href: "blob:https://h/worker", origin: "https://h" }, "/pushy", "https://h/pushy/socket/websocket?v=2"],
    [{ baseURI: "https://ann:secret@h/a", href: "https://h/a" }, "/pushy", "https://h/pushy/socket/websocket?v=2"],
  ]) {
    page(t, globals);
    assert.equal(address(url)("/socket/websocket"), websocket, `${url} of ${globals.baseURI}`);
  }
});

// Issue 11, number 31.
test("address: a URL that cannot be one is named, without its password", (t) => {
  for (const url of ["http://", "https://h:port", "ftp://h/pushy", "javascript:alert(1)", "mailto:a@b", "blob:https://h/1", "wsx://h", "http://ann:secret@h/pushy", "wss://ann@h", "http://ann:secret@"]) {
    assert.throws(() => address(url), (error) => {
      assert.ok(error instanceof TypeError);
      assert.ok(error.message.includes(url.replace(/\/\/.*@/, "//…@")), error.message);
      assert.ok(!error.message.includes("secret"), error.message);
      return true;
    });
  }
  page(t, { baseURI: "data:text/html,hello", href: "data:text/html,hello", origin: "null" });
  assert.throws(() => address("/pushy"), /"\/pushy" is not a URL/);
  page(t, { baseURI: "file:///home/page.html", href: "file:///home/page.html", origin: "null" });
  assert.throws(() => address("/pushy"), /"\/pushy" is not a URL/);
});

// Issue 11, number 31: such a value was taken for the name of a path, such as /[object%20Object].
test("address: what is no URL at all is an error, with a page and without", (t) => {
  const wrong = [null, 5, true, {}, [], { auth: "/auth" }, { href: 5 }, () => "/pushy"];
  for (const url of wrong) assert.throws(() => address(url), /^TypeError: pushy: ".*" is not a URL/s, `${url}`);
  page(t, { baseURI: "https://h/a", href: "https://h/a" });
  for (const url of wrong) assert.throws(() => address(url), /^TypeError: pushy: ".*" is not a URL/s, `${url}`);
});

// Issue 11, number 31.
test("address: without a page a relative URL leads nowhere, and is no error", () => {
  for (const url of ["/pushy", "pushy", "ws/pushy?id=1", "//h/pushy", ""]) assert.equal(address(url), undefined, url);
});

// Issue 11, number 34.
test("address: the auth endpoint is under the prefix", () => {
  for (const [url, auth] of [
    ["http://h", "http://h/pushy/auth?v=2"], ["https://h/rt/?id=7", "https://h/rt/auth?v=2&id=7"], ["ws://h/a/rt/socket", "http://h/a/rt/auth?v=2"],
  ]) assert.equal(address(url)("/auth"), auth);
});

// Issue 11, number 32.
test("memory: an hour, by a clock that may be set back", (t) => {
  const at = (path) => `http://memory/pushy/socket${path}?id=7`;
  let now = 1_700_000_000_000;
  t.mock.method(Date, "now", () => now);
  remember(at, "polling");
  assert.equal(recall(at), "polling");
  now += 3_599_999;
  assert.equal(recall(at), "polling");
  now += 1;
  assert.equal(recall(at), undefined);
  now -= 3_600_001; // before it was written
  assert.equal(recall(at), undefined);
  now -= 365 * 24 * 3_600_000;
  assert.equal(recall(at), undefined);
});

// Issue 11, numbers 30 and 33.
test("retry: Retry-After in seconds and as a date, at most an hour", (t) => {
  t.mock.method(Date, "now", () => 1_700_000_000_000);
  for (const [header, ms] of [
    ["5", 5000], ["0", 0], [null, 0], [undefined, 0], ["soon", 0], ["-5", 0], ["1e99", 3_600_000],
    ["Tue, 14 Nov 2023 22:13:50 GMT", 30_000], ["Tue, 14 Nov 2000 22:13:50 GMT", 0], ["Tue, 14 Nov 2090 22:13:50 GMT", 3_600_000],
  ]) assert.equal(retryAfter(header), ms, header);
});

test("emitter: binds, unbinds one or all, on and off", () => {
  const emitter = new Emitter(), heard = [];
  const a = (x) => heard.push(`a${x}`), b = (x) => heard.push(`b${x}`);
  assert.equal(emitter.bind("e", a).on("e", b).on("e", a), emitter);
  emitter._emit("e", 1);
  emitter.unbind("e", a)._emit("e", 2);
  emitter.unbind("e", () => {})._emit("e", 3);
  emitter.off("e", b)._emit("e", 4);
  emitter.off("e")._emit("e", 5);
  assert.deepEqual(heard, ["a1", "b1", "a1", "b2", "a2", "b3", "a3", "a4"]);
});

test("emitter: names of Object's own are names", () => {
  const emitter = new Emitter(), heard = [];
  for (const name of ["__proto__", "constructor", "toString"]) {
    emitter._emit(name, "to nobody");
    emitter.unbind(name).bind(name, (x) => heard.push(name + x));
    emitter._emit(name, 1);
  }
  assert.deepEqual(heard, ["__proto__1", "constructor1", "toString1"]);
});

test("emitter: a listener that throws stops nothing, and is not kept quiet", async (t) => {
  const thrown = [];
  t.mock.method(globalThis, "queueMicrotask", (report) => {
    try {
      report();
    } catch (error) {
      thrown.push(error.message);
    }
  });
  const emitter = new Emitter(), heard = [];
  emitter.bind("e", () => { throw new Error("mine"); }).bind("e", () => heard.push("still"));
  emitter._emit("e");
  assert.deepEqual(heard, ["still"]);
  assert.deepEqual(thrown, ["mine"]);
});

test("emitter: who unbinds while an event goes round", () => {
  const emitter = new Emitter(), heard = [];
  const once = () => { heard.push("once"); emitter.unbind("e", once); };
  emitter.bind("e", once).bind("e", () => heard.push("always"));
  emitter._emit("e");
  emitter._emit("e");
  assert.deepEqual(heard, ["once", "always", "always"]);
});
