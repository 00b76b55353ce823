// Tests one SockJS transport with test/sockjs. It runs in node and in a page, so it uses only
// SockJS and fetch. The channels' names contain the argument where, because a client that leaves
// between two polls is disconnected only later.
export async function scenario(base, transport, where) {
  const wants = (ok, what) => {
    if (!ok) throw new Error(`${transport}: ${what}`);
  };

  class Client {
    static async open(name) {
      const client = new Client(name);
      const hello = await client.next("pushy:connect");
      client.id = hello.data.socketId;
      client.protocol = hello.data.protocol;
      wants(client.sock.transport === transport, `connected over ${client.sock.transport}`);
      return client;
    }

    constructor(name) {
      this.name = name;
      this.all = [];
      this.waiting = [];
      this.sock = new SockJS(`${base}/pushy/socket`, null, { transports: transport, timeout: 30_000 });
      this.sock.onmessage = ({ data }) => this.#put(JSON.parse(data));
      this.closed = new Promise((resolve) => {
        this.sock.onclose = ({ code, reason }) => {
          resolve(`${code} ${reason}`);
          this.#put({ event: `closed with ${code} ${reason}` });
        };
      });
    }

    #put(message) {
      const resolve = this.waiting.shift();
      if (resolve) resolve(message);
      else this.all.push(message);
    }

    async next(event) {
      const message = this.all.shift() ?? await new Promise((resolve) => this.waiting.push(resolve));
      wants(message.event === event, `${this.name} waited for ${event} and got ${JSON.stringify(message)}`);
      return message;
    }

    send(command, data) {
      this.sock.send(JSON.stringify({ command, data }));
    }

    async join(channel) {
      const url = `${base}/auth?name=${this.name}`;
      const auth = await fetch(url, { method: "POST", body: new URLSearchParams({ channel, connection_id: this.id }) });
      this.send("subscribe", { channel, ...await auth.json() });
      return (await this.next("pushy:subscription-success")).data;
    }
  }

  const lobby = `${transport}-${where}`, room = `private-${lobby}`;
  const [ada, grace] = await Promise.all([Client.open("ada"), Client.open("grace")]);
  for (const client of [ada, grace]) {
    client.send("subscribe", { channel: lobby });
    await client.next("pushy:subscription-success");
  }

  const members = (await ada.join(room)).presence.map(({ name }) => name);
  wants(members.join() === "ada", `ada is with ${members}`);
  const both = await grace.join(room);
  wants(both.presence.map(({ name }) => name).join() === "ada,grace", `grace is with ${JSON.stringify(both)}`);
  const { data: { member } } = await ada.next("pushy:presence-add");
  wants(member.name === "grace", `added ${JSON.stringify(member)}`);

  ada.send("burst", { channel: lobby, events: 1000 });
  for (const client of [ada, grace]) {
    for (let i = 0; i < 1000; i++) {
      const { channel, data } = await client.next("number");
      wants(channel === lobby && data === i, `${client.name} got ${data} of ${channel} for ${i}`);
    }
  }

  const text = "Grüße \u{1F600} \u2028 </script> 100% %41 %5C%22 %u0041 \\ \" \u0000\u007f\uffff";
  for (let i = 0; i < 20; i++) ada.send("echo", { i, text });
  for (let i = 0; i < 20; i++) {
    const { data } = await ada.next("echoed");
    wants(data.i === i && data.text === text, `echoed ${JSON.stringify(data)}`);
  }
  ada.send("nonsense");
  wants((await ada.next("pushy:error")).data.code === "200", "an unknown command is an error");

  grace.send("leave", { code: 3500, reason: "asked to, 100% %41" });
  await grace.next("last words");
  wants(await grace.closed === "3500 asked to, 100% %41", `grace closed with ${await grace.closed}`);
  wants((await ada.next("pushy:presence-quit")).data.member.memberId === member.memberId, "the member that quit is the member that joined");

  const alan = await Client.open("alan");
  await alan.join(room);
  await ada.next("pushy:presence-add");
  alan.sock.close(1000, "enough");
  await ada.next("pushy:presence-quit");
  ada.sock.close();
  wants(await ada.closed === "1000 Normal closure", `ada closed with ${await ada.closed}`);
  return ada.protocol;
}
