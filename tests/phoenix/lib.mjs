// What the tests share: the fixture as a process, a raw peer, plain HTTP, and waiting without sleeping.
import assert from "node:assert/strict";
import http from "node:http";
import WebSocket from "ws";
import { Inbox, within } from "./fixture.mjs";

export { Fixture, Inbox, PATIENCE_MS, within } from "./fixture.mjs";

/** A WebSocket that says exactly what it is told to. */
export class Peer {
  #inbox = new Inbox();
  #fences = 0;

  /** @param {string} url with path and query */
  static async open(url, { protocols = [], headers = {} } = {}) {
    const peer = new Peer();
    // The handshake's answer can bring frames along: they must find a listener.
    peer.socket = new WebSocket(url, protocols, { headers });
    peer.socket.on("message", (data, binary) => peer.#inbox.put(binary ? data : JSON.parse(data.toString())));
    peer.socket.on("error", (error) => (peer.error = error));
    peer.closed = new Promise((resolve) => {
      peer.socket.on("close", (code, reason) => resolve({ code, reason: reason.toString() }));
    });
    await within(
      new Promise((resolve, reject) => {
        peer.socket.once("open", resolve);
        peer.socket.once("error", reject);
      }),
      `${url} to open`,
    );
    return peer;
  }

  /** A message: bytes go out as binary, a string as it is, the rest as JSON. */
  send(message) {
    const raw = typeof message === "string" || Buffer.isBuffer(message);
    this.socket.send(raw ? message : JSON.stringify(message));
  }

  /** Bytes below the WebSocket, for frames that no library would send. */
  sendRaw(...bytes) {
    this.socket._socket.write(Buffer.from(bytes.flat()));
  }

  /** The next message: parsed if it was text, a Buffer if it was binary. */
  next(what) {
    return this.#inbox.take(what ?? "a message");
  }

  /** The next messages are exactly these. */
  async expect(...messages) {
    for (const message of messages) assert.deepEqual(await this.next(JSON.stringify(message)), message);
  }

  /** Sends, and reads the one answer. */
  async ask(message) {
    this.send(message);
    return this.next(`the answer to ${JSON.stringify(message)}`);
  }

  /** Nothing is on the way: what the server has to say about all we sent comes before the answer to a heartbeat. */
  async expectNothing() {
    const ref = `fence-${++this.#fences}`;
    this.send([null, ref, "phoenix", "heartbeat", {}]);
    await this.expect([null, ref, "phoenix", "phx_reply", { status: "ok", response: {} }]);
  }

  /** The code that the server closed with. */
  async expectClosed(code) {
    const closed = await within(this.closed, `a close with ${code}`);
    assert.equal(closed.code, code, closed.reason);
    assert.deepEqual(this.#inbox.rest, [], "messages before the close");
  }

  close() {
    this.socket.terminate();
  }
}

/** `[join_ref, ref, topic, "phx_reply", {status, response}]`. */
export const reply = (joinRef, ref, topic, status, response = {}) => [
  joinRef,
  ref,
  topic,
  "phx_reply",
  { status, response },
];

/** What everything gets that concerns a topic which is not joined. */
export const unmatched = (ref, topic) => reply(null, ref, topic, "error", { reason: "unmatched topic" });

/** The headers of an opening handshake (RFC 6455 §4.1). */
export const UPGRADE = {
  Connection: "Upgrade",
  Upgrade: "websocket",
  "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
  "Sec-WebSocket-Version": "13",
};

/** One request on a connection of its own: `{status, headers, body}`, an upgrade included (its connection is dropped). */
export function request(port, path, { method = "GET", headers = {}, body } = {}) {
  const answer = new Promise((resolve, reject) => {
    const sent = http.request({ port, host: "127.0.0.1", path, method, headers, agent: false }, async (response) => {
      const chunks = [];
      for await (const chunk of response) chunks.push(chunk);
      resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks).toString() });
    });
    sent.on("upgrade", (response, socket) => {
      socket.destroy();
      resolve({ status: response.statusCode, headers: response.headers, body: "" });
    });
    sent.on("error", reject);
    sent.end(body);
  });
  return within(answer, `${method} ${path}`);
}

/** An opening handshake with these headers beside the usual ones; a header of value undefined is left out. */
export function handshake(port, path, headers = {}) {
  const all = { ...UPGRADE, ...headers };
  for (const name of Object.keys(all)) if (all[name] === undefined) delete all[name];
  return request(port, path, { headers: all });
}
