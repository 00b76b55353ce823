// The parts that know nothing of each other.
import assert from "node:assert/strict";
import { test } from "node:test";
import { address } from "../src/address.js";
import { Emitter } from "../src/emitter.js";
import { fromList, withMember, withoutMember } from "../src/presence.js";
import { delay, isFinal } from "../src/retry.js";

const ann = { memberId: "a", name: "Ann", subscribed: 1, idle: false };
const bob = { memberId: "b", name: "Bob", subscribed: 2, idle: false };

test("presence: a list is all members, in its order", () => {
  assert.deepEqual([...fromList([bob, ann])], [["b", bob], ["a", ann]]);
  assert.equal(fromList(undefined).size, 0);
});

test("presence: who comes is last, who goes is gone, and the Map before is as it was", () => {
  const before = fromList([ann]);
  const both = withMember(before, bob);
  assert.deepEqual([...both.keys()], ["a", "b"]);
  assert.deepEqual([...withoutMember(both, ann).values()], [bob]);
  assert.deepEqual([...withoutMember(both, { memberId: "nobody" }).keys()], ["a", "b"]);
  assert.deepEqual([...before.keys()], ["a"]);
});

test("presence: names that others choose are names", () => {
  const hostile = ["__proto__", "constructor", "hasOwnProperty", "toString"].map((memberId) =>
    JSON.parse(`{"memberId":"${memberId}","__proto__":{"admin":true},"constructor":{"prototype":{"admin":true}}}`));
  const members = hostile.reduce(withMember, fromList(hostile.slice(0, 1)));
  assert.deepEqual([...members.keys()], ["__proto__", "constructor", "hasOwnProperty", "toString"]);
  assert.equal({}.admin, undefined);
  assert.equal(members.admin, undefined);
  assert.equal(withoutMember(members, hostile[0]).has("__proto__"), false);
});

test("retry: anything between half a second and a bound that doubles to 20 s", (t) => {
  const at = (random, failures) => {
    t.mock.method(Math, "random", () => random);
    return delay(failures, 500, 20_000);
  };
  assert.deepEqual([0, 1, 2, 3, 4, 5, 50].map((n) => at(0, n)), Array(7).fill(500));
  assert.deepEqual([0, 1, 2, 3, 4, 5, 50].map((n) => at(1, n)), [1000, 2000, 4000, 8000, 16_000, 20_000, 20_000]);
  assert.equal(at(0.5, 50), 10_250);
});

test("retry: close codes that say not to come back", () => {
  for (const code of [1002, 1003, 1007, 1008, 1009, 3500, 3501, 3999]) assert.ok(isFinal(code), `${code}`);
  for (const code of [1000, 1001, 1005, 1006, 1011, 1012, 1013, 2010, 3000, 3001, 3008, 3499, 4000]) assert.ok(!isFinal(code), `${code}`);
});

test("address: with or without the socket path, with the query", () => {
  for (const [url, websocket] of [
    ["http://h:1", "http://h:1/pushy/socket/websocket"],
    ["http://h:1/", "http://h:1/pushy/socket/websocket"],
    ["http://h/pushy", "http://h/pushy/socket/websocket"],
    ["http://h/pushy/", "http://h/pushy/socket/websocket"],
    ["http://h/pushy/socket", "http://h/pushy/socket/websocket"],
    ["http://h/pushy/socket/", "http://h/pushy/socket/websocket"],
    ["https://h/a/rt?id=1&x=%20#y", "https://h/a/rt/socket/websocket?id=1&x=%20"],
    ["wss://h/rt", "https://h/rt/socket/websocket"],
  ]) assert.equal(address(url)("/websocket"), websocket, url);
  assert.throws(() => address("not absolute, and no page"), TypeError);
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
