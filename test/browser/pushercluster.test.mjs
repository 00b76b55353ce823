// Presence of pusher-js over three nodes: users with three tabs that are closed in any order, a page that is
// reloaded, and a node that is killed.
import assert from "node:assert/strict";
import { patience, startNATS, startRedis } from "./example.mjs";
import { ask, buildNodes, options, Pusher, startNode, startProxy, subscribed, until } from "./pushersite.mjs";
import { before, test } from "./suite.mjs";

const limit = { timeout: 10 * patience };
const grace = "10s"; // also the lease of a node
const room = "presence-Room";
const orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

before(buildNodes, limit);

const brokers = {
  Redis: async (t) => {
    const redis = await startRedis();
    t.after(redis.stop);
    return { redis: { addresses: [redis.address] } };
  },
  NATS: async (t) => {
    const nats = await startNATS();
    t.after(nats.stop);
    return { nats: { url: `nats://${nats.address}` } };
  },
};

test("users with three tabs on three nodes", { ...limit, concurrency: true }, async (t) => {
  await Promise.all(Object.entries(brokers).map(([name, start]) => t.test(name, limit, (t) => tabs(t, start))));
});

async function tabs(t, start) {
  const broker = await start(t);
  const nodes = await Promise.all([0, 1, 2].map(() => startNode({ broker, grace })));
  const proxies = await Promise.all(nodes.map(({ port }) => startProxy(port)));
  const clients = [];
  t.after(async () => {
    for (const client of clients) client.disconnect();
    for (const proxy of proxies) proxy.stop();
    await Promise.all(nodes.map((node) => node.stop()));
  });
  const [{ sdk }] = nodes;

  // open makes a tab of a user on a node, and joins the room.
  const open = async (user, at, port = proxies[at].port) => {
    const client = new Pusher("app-key", options(port, sdk, user));
    clients.push(client);
    const channel = client.subscribe(room);
    const seen = { added: {}, removed: {} };
    for (const what of ["added", "removed"]) {
      channel.bind(`pusher:member_${what}`, ({ id }) => { seen[what][id] = (seen[what][id] ?? 0) + 1; });
    }
    await subscribed(channel);
    assert.equal(channel.members.me.id, user, "as it was signed");
    assert.deepEqual(channel.members.me.info, { name: `N${user}` });
    return { client, channel, seen };
  };
  const ids = ({ channel }) => Object.keys(channel.members.members).sort();
  const forget = (tabs) => tabs.forEach(({ seen }) => Object.assign(seen, { added: {}, removed: {} }));
  const agree = async (tabs, users) => {
    const expected = users.map(String).sort();
    try {
      await until(`all have ${users.length} members`, () => tabs.every(({ channel }) => channel.members.count === users.length));
    } catch (error) {
      for (const { client, channel } of tabs) {
        const { state, socket_id } = client.connection;
        error.message += `\n${state} ${socket_id} ${channel.subscribed} ${channel.members.me?.id}: ${Object.keys(channel.members.members)}`;
      }
      for (const { log } of nodes) error.message += `\nnode:\n${log.join("\n")}`;
      throw error;
    }
    for (const tab of tabs) assert.deepEqual(ids(tab), expected);
    for (const { sdk } of nodes) {
      const { user_count } = await ask(sdk, `/channels/${room}`, { info: "user_count" });
      assert.equal(user_count, users.length);
      const list = await ask(sdk, `/channels/${room}/users`);
      assert.deepEqual(list.users.map(({ id }) => id).sort(), expected);
    }
  };

  const watchers = [];
  for (const at of [0, 1, 2]) watchers.push(await open(`w${at}`, at));
  await agree(watchers, ["w0", "w1", "w2"]);
  forget(watchers);

  // Each user has a tab on each node, and closes them in its own order.
  const users = orders.flatMap((order, i) => [100 + i, `s${i}`].map((id) => ({ id, order })));
  await Promise.all(users.flatMap((user) => {
    user.tabs = [];
    return [0, 1, 2].map(async (at) => { user.tabs[at] = await open(user.id, at); });
  }));
  const all = [...watchers, ...users.flatMap(({ tabs }) => tabs)];
  await agree(all, ["w0", "w1", "w2", ...users.map(({ id }) => id)]);
  const once = Object.fromEntries(users.map(({ id }) => [id, 1]));
  for (const { seen } of watchers) assert.deepEqual(seen, { added: once, removed: {} });
  const close = (step) => users.forEach(({ tabs, order }) => tabs[order[step]].client.disconnect());
  close(0);
  close(1);
  await until("two tabs of each are closed", async () => (
    (await ask(sdk, `/channels/${room}`, { info: "subscription_count" })).subscription_count === watchers.length + users.length));
  const rest = [...watchers, ...users.map(({ tabs, order }) => tabs[order[2]])];
  await agree(rest, ["w0", "w1", "w2", ...users.map(({ id }) => id)]);
  close(2);
  await agree(watchers, ["w0", "w1", "w2"]);
  for (const { seen } of watchers) assert.deepEqual(seen, { added: once, removed: once });
  forget(watchers);

  // A node is killed: who has a tab on it and returns, stays; who does not return is removed once, as is
  // the member that a page had before it was reloaded.
  const three = await Promise.all([0, 1, 2].map((at) => open(7, at)));
  const single = await open("single", 1);
  const gone = await open(9, 1, nodes[1].port);
  const path = await startProxy(nodes[2].port);
  t.after(path.stop);
  const page = await open("reloads", 2, path.port);
  await agree([...watchers, ...three, single, gone, page], ["w0", "w1", "w2", 7, "single", 9, "reloads"]);
  const added = { 7: 1, single: 1, 9: 1, reloads: 1 };
  for (const { seen } of watchers) assert.deepEqual(seen, { added, removed: {} });
  proxies[1].to = nodes[2].port;
  await nodes[1].kill();
  gone.client.disconnect();
  path.stop(); // the page does not say that it leaves
  page.client.disconnect();
  const reloaded = await open("reloads", 0);
  nodes[1] = await startNode({ broker, grace });
  const [, lost] = watchers;
  const back = [lost, three[1], single];
  await until("the tabs of the killed node are back", () => back.every(({ channel }) => channel.subscribed));
  await agree([...watchers, ...three, single, reloaded], ["w0", "w1", "w2", 7, "single", "reloads"]);
  for (const at of [0, 2]) assert.deepEqual(watchers[at].seen, { added, removed: { 9: 1 } });
  for (const { channel } of back) assert.equal(channel.members.me.id, channel.members.myID);
}
