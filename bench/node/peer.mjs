// One of the Node servers with which pushy is compared: node peer.mjs KIND.
// It prints its address; POST /publish sends its body to every client.
import { createServer } from "node:http";
import { createRequire } from "node:module";

const kind = process.argv[2];
const envelope = (data) => JSON.stringify({ event: "m", channel: "bench", data });

// Each attaches itself to the HTTP server and returns its function that publishes.
const kinds = {
  async sockjs(server) {
    const members = new Set();
    const sockjs = createRequire(import.meta.url)("sockjs").createServer({ prefix: "/pushy/socket", log() {} });
    sockjs.on("connection", (connection) => {
      connection.write('{"event":"pushy:connect","data":{}}');
      connection.on("data", () => {
        members.add(connection);
        connection.write('{"event":"pushy:subscription-success","data":{}}');
      });
      connection.on("close", () => members.delete(connection));
    });
    sockjs.installHandlers(server);
    return (data) => {
      const text = envelope(data);
      for (const connection of members) connection.write(text);
    };
  },
  async socketio(server) {
    const { Server } = await import("socket.io");
    const io = new Server(server, { transports: ["websocket"], cors: { origin: true } });
    io.on("connection", (socket) => socket.join("bench"));
    return (data) => io.to("bench").emit("m", data);
  },
  async ws(server) {
    const { WebSocketServer } = await import("ws");
    const sockets = new WebSocketServer({ server, perMessageDeflate: false });
    return (data) => {
      const text = envelope(data);
      for (const socket of sockets.clients) socket.send(text);
    };
  },
};

let publish;
const server = createServer((request, response) => {
  if (request.method !== "POST" || !request.url.startsWith("/publish")) return;
  let body = "";
  request.on("data", (part) => (body += part));
  request.on("end", () => {
    publish(JSON.parse(body));
    response.setHeader("Content-Length", 2);
    response.end("ok");
  });
});
publish = await kinds[kind](server);
server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, () => console.log(`127.0.0.1:${server.address().port}`));
