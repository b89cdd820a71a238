// npm's ws as an echo server on a free port; large answers go out in fragments with a ping in between.
import { WebSocketServer } from "ws";

const FRAGMENTED = 64 * 1024;

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, maxPayload: 16 << 20 }, () => {
  const { address, port } = server.address();
  console.log(`listening on ${address}:${port}`);
});

server.on("connection", (socket) => {
  socket.ping("welcome");
  socket.on("message", (data, binary) => {
    if (data.length < FRAGMENTED) return socket.send(data, { binary });
    const third = Math.floor(data.length / 3);
    socket.send(data.subarray(0, third), { binary, fin: false });
    socket.ping("between fragments");
    socket.send(data.subarray(third, 2 * third), { binary, fin: false });
    socket.send(data.subarray(2 * third), { binary, fin: true });
  });
});
