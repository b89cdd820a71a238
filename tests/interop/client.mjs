// npm's ws as the client of an echo endpoint: node client.mjs URL
import assert from "node:assert/strict";
import { once } from "node:events";
import WebSocket from "ws";

const url = process.argv[2];
const patience = setTimeout(() => assert.fail("no answer within 300 s"), 300_000);

async function connect() {
  const socket = new WebSocket(url);
  await once(socket, "open");
  return socket;
}

async function echoed(socket, data, options = {}) {
  const answer = once(socket, "message");
  socket.send(data, options);
  const [received, binary] = await answer;
  assert.equal(binary, typeof data !== "string", "the type of the message changed");
  assert.ok(received.equals(Buffer.from(data)), `${Buffer.byteLength(data)} bytes came back changed`);
}

async function lengths() {
  const socket = await connect();
  for (const length of [0, 1, 125, 126, 127, 65535, 65536, 1 << 20, 10 << 20]) {
    await echoed(socket, "a".repeat(length));
    await echoed(socket, Buffer.alloc(length, 0xa5));
  }
  await echoed(socket, "κόσμε 😀 \u{10FFFF}".repeat(10_000));
  socket.terminate();
}

async function fragments() {
  const socket = await connect();
  for (const [size, times] of [[1, 20], [7, 100], [1000, 5000]]) {
    const text = Buffer.from("zwölf Boxkämpfer 😀 ".repeat(times));
    const answer = once(socket, "message");
    for (let at = 0; at < text.length; at += size) {
      socket.send(text.subarray(at, at + size), { binary: false, fin: at + size >= text.length });
      if (at === 0) socket.ping("between fragments");
    }
    const [received, binary] = await answer;
    assert.ok(!binary && received.equals(text), `fragments of ${size} bytes came back changed`);
  }
  socket.terminate();
}

async function pings() {
  const socket = await connect();
  for (const payload of ["", "x", "y".repeat(125)]) {
    const answer = once(socket, "pong");
    socket.ping(payload);
    assert.equal((await answer)[0].toString(), payload);
  }
  socket.terminate();
}

async function closes() {
  for (const [code, reason] of [[1000, ""], [1000, "bye"], [3000, "ädieu"], [4999, "z".repeat(123)]]) {
    const socket = await connect();
    const answer = once(socket, "close");
    socket.close(code, reason);
    assert.equal((await answer)[0], code, "the server did not answer with our code");
  }
  const socket = await connect();
  const answer = once(socket, "close");
  socket.close();
  assert.ok([1000, 1005].includes((await answer)[0]), "a close without a code");
}

async function manyAtOnce() {
  const sockets = await Promise.all(Array.from({ length: 100 }, connect));
  await Promise.all(sockets.map(async (socket, who) => {
    for (let n = 0; n < 50; n++) await echoed(socket, `connection ${who} message ${n}`);
    socket.close(1000);
    await once(socket, "close");
  }));
}

for (const part of [lengths, fragments, pings, closes, manyAtOnce]) {
  await part();
  console.log(`ok ${part.name}`);
}
clearTimeout(patience);
