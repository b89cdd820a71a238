// The wire, row by row, with raw sockets: handshakes, both versions' shapes, the routing table, the close codes.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Fixture, handshake, Peer, reply, request, unmatched } from "./lib.mjs";

let fixture;
let port;
const peers = [];
let topics = 0;

before(async () => {
  fixture = await Fixture.start();
  port = fixture.port;
});
after(async () => {
  peers.forEach((peer) => peer.close());
  await fixture?.kill();
});

const WS = "/socket/websocket";
const V2 = `${WS}?vsn=2.0.0`;

/** A V2 peer, unless the query says otherwise. */
async function open(query = "vsn=2.0.0", mount = "/socket", options = {}) {
  const peer = await Peer.open(`ws://127.0.0.1:${port}${mount}/websocket?${query}`, options);
  peers.push(peer);
  return peer;
}

/** A topic that no other test has. */
const fresh = (prefix = "room:t") => `${prefix}${++topics}`;

/** A V2 peer that joined a topic with join_ref and ref `"1"`. */
async function joined(topic = fresh(), payload = {}) {
  const peer = await open();
  peer.send(["1", "1", topic, "phx_join", payload]);
  await peer.expect(reply("1", "1", topic, "ok"));
  return [peer, topic];
}

describe("§1 paths and the order of checks", () => {
  const rows = [
    // what, path, headers that differ from a good handshake, status, body
    ["a good handshake", V2, {}, 101, ""],
    ["a trailing slash", `${WS}/?vsn=2.0.0`, {}, 101, ""],
    ["the mount alone", "/socket?vsn=2.0.0", {}, 404, "nf"],
    ["another transport", "/socket/other?vsn=2.0.0", {}, 404, "nf"],
    ["another path", "/elsewhere", {}, 404, "nf"],
    ["connect refuses", `${V2}&reject=1`, {}, 403, ""],
    ["connect has an error, and a handler answers it", `${V2}&rl=1`, {}, 429, "Too many requests"],
    ["connect panics", `${V2}&raise=1`, {}, 500, undefined],
    ["origin before connect", `${V2}&rl=1`, { Origin: "http://evil.com" }, 403, ""],
    ["vsn before connect", `${WS}?vsn=3.0.0&rl=1`, {}, 403, ""],
    ["connect before the upgrade is looked at", `${V2}&rl=1`, { "Sec-WebSocket-Key": undefined }, 429, undefined],
    ["connect refuses what is no upgrade", `${V2}&reject=1`, { Connection: undefined, Upgrade: undefined }, 403, ""],
    ["vsn refuses what is no upgrade", `${WS}?vsn=abc`, { Connection: undefined, Upgrade: undefined }, 403, ""],
    ["no Connection: upgrade", V2, { Connection: "keep-alive" }, 400, undefined],
    ["no Upgrade: websocket", V2, { Upgrade: "h2c" }, 400, undefined],
    ["no key", V2, { "Sec-WebSocket-Key": undefined }, 400, undefined],
    ["another WebSocket version", V2, { "Sec-WebSocket-Version": "12" }, 400, undefined],
    ["origin before the token", "/tok/websocket?vsn=2.0.0",
      { Origin: "http://evil.com", "Sec-WebSocket-Protocol": "phoenix, base64url.bearer.phx.$$$" }, 403, ""],
    ["the token before vsn", "/tok/websocket?vsn=3.0.0",
      { "Sec-WebSocket-Protocol": "phoenix, base64url.bearer.phx.$$$" }, 500, undefined],
    ["the subprotocol before connect", "/tok/websocket?vsn=2.0.0&rl=1",
      { "Sec-WebSocket-Protocol": "mqtt" }, 403, ""],
  ];
  for (const [what, path, headers, status, body] of rows) {
    test(`${what}: ${status}`, async () => {
      const answer = await handshake(port, path, headers);
      assert.equal(answer.status, status);
      if (body !== undefined) assert.equal(answer.body, body);
    });
  }

  for (const method of ["POST", "PUT", "DELETE", "OPTIONS"]) {
    test(`${method}: 400 without a body, before everything else`, async () => {
      const answer = await request(port, `${V2}&rl=1`, { method });
      assert.deepEqual([answer.status, answer.body], [400, ""]);
    });
  }

  test("a plain GET: 400, and a text says what is missing", async () => {
    const answer = await request(port, V2);
    assert.equal(answer.status, 400);
    assert.match(answer.body, /upgrade/i);
  });

  test("101 proves that the key was read, and the server says nothing by itself", async () => {
    const answer = await handshake(port, V2);
    assert.equal(answer.headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert.equal(answer.headers.upgrade.toLowerCase(), "websocket");
    assert.equal(answer.headers.connection.toLowerCase(), "upgrade");
    assert.equal(answer.headers["sec-websocket-extensions"], undefined);
    await (await open()).expectNothing();
  });
});

describe("§1.2 vsn", () => {
  const v1 = (topic) => ({ topic, event: "phx_reply", ref: "1", payload: { status: "ok", response: {} } });
  for (const query of ["", "vsn=1.0.0", "vsn=1.0.5"]) {
    test(`${query || "none"}: V1`, async () => {
      const [peer, topic] = [await open(query), fresh()];
      peer.send({ topic, event: "phx_join", payload: {}, ref: "1" });
      await peer.expect(v1(topic));
    });
  }
  for (const query of ["vsn=2.0.0", "vsn=2.0.9"]) {
    test(`${query}: V2`, async () => {
      const [peer, topic] = [await open(query), fresh()];
      peer.send(["1", "1", topic, "phx_join", {}]);
      await peer.expect(reply("1", "1", topic, "ok"));
    });
  }
  for (const vsn of ["1.1.0", "2.1.0", "3.0.0", "2", "2.0", "abc", "", "2.0.0-rc.1"]) {
    test(`vsn=${vsn}: 403`, async () => assert.equal((await handshake(port, `${WS}?vsn=${vsn}`)).status, 403));
  }
  test("vsn[]=2.0.0: 403", async () => assert.equal((await handshake(port, `${WS}?vsn[]=2.0.0`)).status, 403));
  test("vsn%5B%5D=2.0.0: 403", async () => {
    assert.equal((await handshake(port, `${WS}?vsn%5B%5D=2.0.0`)).status, 403);
  });
});

describe("§1.3 origins: a list of //localhost and //*.example.com", () => {
  const rows = [
    [undefined, 101],
    ["http://localhost", 101],
    ["https://localhost", 101],
    ["http://localhost:1234", 101],
    ["http://example.com", 101],
    ["https://a.example.com", 101],
    ["http://a.b.example.com:88", 101],
    ["http://evilexample.com", 403],
    ["http://example.com.evil.com", 403],
    ["http://localhost.evil.com", 403],
    ["http://sub.localhost", 403],
    ["http://127.0.0.1", 403],
    ["null", 403],
    ["file://", 403],
  ];
  for (const [origin, status] of rows) {
    test(`${origin ?? "no Origin"}: ${status}`, async () => {
      const answer = await handshake(port, V2, { Origin: origin });
      assert.deepEqual([answer.status, answer.body], [status, ""]);
      const poll = await request(port, "/socket/longpoll?vsn=2.0.0", { headers: origin ? { Origin: origin } : {} });
      assert.equal(poll.status, 200);
      assert.equal(JSON.parse(poll.body).status, status === 101 ? 410 : 403);
    });
  }
});

describe("§1.3 origins: the request's own", () => {
  const rows = [
    ["127.0.0.1:PORT", "http://127.0.0.1:PORT", 101],
    ["chat.test:PORT", "http://chat.test:PORT", 101],
    ["chat.test", "http://chat.test", 101],
    ["chat.test", "http://chat.test:80", 101],
    ["127.0.0.1:PORT", undefined, 101],
    ["127.0.0.1:PORT", "https://127.0.0.1:PORT", 403],
    ["127.0.0.1:PORT", "http://127.0.0.1:1", 403],
    ["127.0.0.1:PORT", "http://127.0.0.1", 403],
    ["127.0.0.1:PORT", "http://localhost:PORT", 403],
    ["127.0.0.1:PORT", "null", 403],
  ];
  for (const [host, origin, status] of rows) {
    test(`Host ${host}, ${origin ?? "no Origin"}: ${status}`, async () => {
      const here = (text) => text?.replace("PORT", port);
      const headers = { Host: here(host), Origin: here(origin) };
      assert.equal((await handshake(port, "/conn/websocket?vsn=2.0.0", headers)).status, status);
    });
  }
});

describe("§1.4 and §1.5 the token and the subprotocols", () => {
  const bearer = (token) => `base64url.bearer.phx.${token}`;
  const rows = [
    // mount, offered, status, selected
    ["/tok", undefined, 101, undefined],
    ["/tok", "phoenix", 101, "phoenix"],
    ["/tok", `phoenix, ${bearer("c2VjcmV0")}`, 101, "phoenix"],
    ["/tok", `${bearer("c2VjcmV0")}, phoenix`, 101, "phoenix"],
    ["/tok", `phoenix, ${bearer("YQ")}`, 101, "phoenix"],
    ["/tok", `phoenix, ${bearer("")}`, 101, "phoenix"],
    ["/tok", `phoenix, ${bearer("Pj4/")}`, 101, "phoenix"],
    ["/tok", `phoenix, ${bearer("Pj4-")}`, 500, undefined],
    ["/tok", `phoenix, ${bearer("Pj4_")}`, 500, undefined],
    ["/tok", `phoenix, ${bearer("$$$")}`, 500, undefined],
    ["/tok", bearer("c2VjcmV0"), 101, undefined],
    ["/tok", "mqtt", 403, undefined],
    ["/tok", `mqtt, ${bearer("c2VjcmV0")}`, 403, undefined],
    ["/tok", `${bearer("YQ")}, ${bearer("Yg")}`, 403, undefined],
    ["/tok", `phoenix, ${bearer("YQ")}, ${bearer("Yg")}`, 101, "phoenix"],
    ["/socket", "phoenix", 101, undefined],
    ["/socket", "mqtt", 101, undefined],
    ["/socket", `phoenix, ${bearer("c2VjcmV0")}`, 101, undefined],
  ];
  for (const [mount, offered, status, selected] of rows) {
    test(`${mount} ${offered ?? "without a header"}: ${status}, ${selected ?? "none"} selected`, async () => {
      const headers = { "Sec-WebSocket-Protocol": offered };
      const answer = await handshake(port, `${mount}/websocket?vsn=2.0.0`, headers);
      assert.equal(answer.status, status);
      assert.equal(answer.headers["sec-websocket-protocol"], selected);
    });
  }

  const tokens = [
    // wanted, offered, status
    ["secret", `phoenix, ${bearer("c2VjcmV0")}`, 101],
    ["a", `${bearer("YQ")}, phoenix`, 101],
    [">>?", `phoenix, ${bearer("Pj4/")}`, 101],
    ["", `phoenix, ${bearer("")}`, 101],
    ["secret", `phoenix, ${bearer("YQ")}`, 403],
    ["secret", "phoenix", 403],
    ["secret", undefined, 403],
    ["a", `phoenix, ${bearer("YQ")}, ${bearer("YQ")}`, 403],
  ];
  for (const [wanted, offered, status] of tokens) {
    test(`the token ${JSON.stringify(wanted)} is wanted, ${offered ?? "no header"} comes: ${status}`, async () => {
      const path = `/tok/websocket?vsn=2.0.0&want=${encodeURIComponent(wanted)}`;
      assert.equal((await handshake(port, path, { "Sec-WebSocket-Protocol": offered })).status, status);
    });
  }

  test("a mount without tokens does not read them", async () => {
    const answer = await handshake(port, `${V2}&want=secret`, { "Sec-WebSocket-Protocol": `phoenix, ${bearer("YQ")}` });
    assert.equal(answer.status, 101);
  });

  const polled = [
    ["a token / not base64", "a token / not base64", 410],
    ["secret", "another", 403],
    ["secret", undefined, 403],
  ];
  for (const [wanted, sent, status] of polled) {
    test(`long-poll: ${JSON.stringify(wanted)} is wanted, ${sent ?? "no header"} comes, as it is: ${status}`, async () => {
      const headers = sent === undefined ? {} : { "x-phoenix-authtoken": sent };
      const path = `/tok/longpoll?vsn=2.0.0&want=${encodeURIComponent(wanted)}`;
      assert.equal(JSON.parse((await request(port, path, { headers })).body).status, status);
    });
  }
});

describe("§2.1 V2 text", () => {
  test("the shape of a reply, whatever the response is", async () => {
    const [peer, topic] = await joined();
    const rows = [
      ["echo", { a: [1, "é", null] }, "ok", { a: [1, "é", null] }],
      ["echo", "text", "ok", "text"],
      ["echo", null, "ok", null],
      ["echo", [1, 2.5, false], "ok", [1, 2.5, false]],
      ["err", { why: 1 }, "error", { why: 1 }],
      ["custom", {}, "weird_status", {}],
      ["status_only", { x: 1 }, "ok", {}],
      ["list", {}, "ok", [1, 2, 3]],
      ["str", {}, "ok", "str"],
    ];
    for (const [event, payload, status, response] of rows) {
      peer.send(["1", "9", topic, event, payload]);
      await peer.expect(reply("1", "9", topic, status, response));
    }
  });

  test("the shapes of a push, a broadcast, and an intercepted one", async () => {
    const [peer, topic] = await joined();
    assert.deepEqual(await peer.ask(["1", "2", topic, "push", { n: 1 }]), ["1", null, topic, "pushed", { n: 1 }]);
    assert.deepEqual(await peer.ask(["1", "3", topic, "shout", { n: 2 }]), [null, null, topic, "shout", { n: 2 }]);
    const intercepted = await peer.ask(["1", "4", topic, "intercept", { n: 3 }]);
    assert.deepEqual(intercepted, ["1", null, topic, "intercepted", { n: 3, seen: true }]);
    await peer.expectNothing();
  });

  test("a broadcast is on the wire before the reply that follows it", async () => {
    const [peer, topic] = await joined();
    peer.send(["1", "2", topic, "shout_reply", { n: 1 }]);
    await peer.expect([null, null, topic, "shout", { n: 1 }], reply("1", "2", topic, "ok"));
  });

  test("broadcast_from spares the sender, not the others", async () => {
    const [peer, topic] = await joined();
    const [other] = await joined(topic);
    peer.send(["1", "2", topic, "shout_from", { n: 1 }]);
    await peer.expectNothing();
    await other.expect([null, null, topic, "shout", { n: 1 }]);
  });

  test("a reply from outside comes later, with the ref of its request", async () => {
    const [peer, topic] = await joined();
    peer.send(["1", "2", topic, "async", { n: 1 }]);
    peer.send(["1", "3", topic, "echo", {}]);
    await peer.expect(reply("1", "3", topic, "ok"), reply("1", "2", topic, "ok", { n: 1 }));
  });

  test("a ref comes back as it is: a number, null, an object", async () => {
    const [peer, topic] = await joined();
    for (const ref of [7, null, "", "x\"y", { a: 1 }, true]) {
      peer.send(["1", ref, topic, "echo", {}]);
      await peer.expect(reply("1", ref, topic, "ok"));
    }
  });

  test("elements after the fifth are ignored", async () => {
    const [peer, topic] = await joined();
    peer.send(["1", "2", topic, "echo", { n: 1 }, "more", {}]);
    await peer.expect(reply("1", "2", topic, "ok", { n: 1 }));
  });

  test("a join takes any payload", async () => {
    const peer = await open();
    for (const payload of [{ a: { b: 1 } }, "text", null, [1], 5]) {
      peer.send(["1", "1", "room:reply", "phx_join", payload]);
      await peer.expect(reply("1", "1", "room:reply", "ok", { joined: true, p: payload }));
      peer.send(["1", "2", "room:reply", "phx_leave", {}]);
      await peer.expect(reply("1", "2", "room:reply", "ok"), ["1", "1", "room:reply", "phx_close", {}]);
    }
  });

  test("U+2028, slashes, escapes and surrogate pairs come back as they were", async () => {
    const [peer, topic] = await joined();
    const text = "\u2028\u2029/\\\"\u0000\u001f😀é\ud83d\udc4d";
    peer.send(["1", "2", topic, "echo", { text }]);
    await peer.expect(reply("1", "2", topic, "ok", { text }));
    peer.send('["1","3","' + topic + '","\\u0065cho",{"k":"\\ud83d\\ude00\\/"}]');
    await peer.expect(reply("1", "3", topic, "ok", { k: "😀/" }));
  });

  for (const broken of ['["1","2","t","e"]', "[]", '{"topic":"t"}', '"text"', "5", "null", "[", "", "nonsense", '["1",']) {
    test(`${broken || "an empty message"}: close 1011`, async () => {
      const peer = await open();
      peer.send(broken);
      await peer.expectClosed(1011);
    });
  }

  test("a join without a join_ref: its replies carry the ref instead, its close null", async () => {
    const [peer, topic] = [await open(), fresh()];
    peer.send([null, "5", topic, "phx_join", {}]);
    await peer.expect(reply(null, "5", topic, "ok"));
    peer.send([null, "6", topic, "echo", {}]);
    await peer.expect(reply("5", "6", topic, "ok"));
    peer.send([null, "7", topic, "stop_normal", {}]);
    await peer.expect([null, null, topic, "phx_close", {}]);
  });
});

describe("§2.2 V1 text", () => {
  /** A V1 peer that joined with ref `"1"`, and a join_ref if one is given. */
  async function joinedV1(joinRef) {
    const [peer, topic] = [await open("vsn=1.0.0"), fresh()];
    peer.send({ topic, event: "phx_join", payload: {}, ref: "1", join_ref: joinRef });
    await peer.expect({ topic, event: "phx_reply", ref: "1", payload: { status: "ok", response: {} } });
    const say = (event, payload, ref, joinRef) => peer.send({ topic, event, payload, ref, join_ref: joinRef });
    const answer = (event, payload, ref) => ({ topic, event, payload, ref });
    return { peer, topic, say, answer };
  }

  test("replies, pushes and broadcasts have four keys and no join_ref", async () => {
    const { peer, say, answer } = await joinedV1("1");
    say("echo", { n: 1 }, "2");
    await peer.expect(answer("phx_reply", { status: "ok", response: { n: 1 } }, "2"));
    say("err", "why", 3);
    await peer.expect(answer("phx_reply", { status: "error", response: "why" }, 3));
    say("push", { n: 2 }, "4");
    await peer.expect(answer("pushed", { n: 2 }, null));
    say("shout", { n: 3 }, "5");
    await peer.expect(answer("shout", { n: 3 }, null));
    say("intercept", {}, "6");
    await peer.expect(answer("intercepted", { seen: true }, null));
  });

  test("a heartbeat, and what is unmatched", async () => {
    const peer = await open("");
    peer.send({ topic: "phoenix", event: "heartbeat", payload: {}, ref: "1" });
    await peer.expect({ topic: "phoenix", event: "phx_reply", ref: "1", payload: { status: "ok", response: {} } });
    peer.send({ topic: "nowhere", event: "x", payload: {}, ref: "2" });
    const payload = { status: "error", response: { reason: "unmatched topic" } };
    await peer.expect({ topic: "nowhere", event: "phx_reply", ref: "2", payload });
  });

  for (const event of ["stop_normal", "crash"]) {
    const [said, payload] = event === "crash" ? ["phx_error", { reason: "channel_crash" }] : ["phx_close", {}];
    test(`${said} has the stored join_ref in ref`, async () => {
      const { peer, say, answer } = await joinedV1("j");
      say(event, {}, "2", "j");
      await peer.expect(answer(said, payload, "j"));
    });
    test(`${said} has null in ref when the join had no join_ref`, async () => {
      const { peer, say, answer } = await joinedV1();
      say(event, {}, "2");
      await peer.expect(answer(said, payload, null));
    });
  }

  test("leaving: a reply, then phx_close", async () => {
    const { peer, say, answer } = await joinedV1("1");
    say("phx_leave", {}, "2", "1");
    await peer.expect(answer("phx_reply", { status: "ok", response: {} }, "2"), answer("phx_close", {}, "1"));
  });

  test("joined without a join_ref: messages with one are dropped, those without pass", async () => {
    const { peer, say, answer } = await joinedV1();
    say("echo", { n: 1 }, "2", "1");
    say("echo", { n: 2 }, "3");
    await peer.expect(answer("phx_reply", { status: "ok", response: { n: 2 } }, "3"));
  });

  test("V1 and V2 in one topic get the same broadcast in their own shapes", async () => {
    const { peer, topic, answer } = await joinedV1();
    const [other] = await joined(topic);
    other.send(["1", "2", topic, "shout", { n: 1 }]);
    await other.expect([null, null, topic, "shout", { n: 1 }]);
    await peer.expect(answer("shout", { n: 1 }, null));
  });

  const whole = { topic: "room:a", event: "phx_join", payload: {}, ref: "1" };
  for (const key of Object.keys(whole)) {
    test(`without ${key}: close 1011`, async () => {
      const peer = await open("vsn=1.0.0");
      peer.send({ ...whole, [key]: undefined });
      await peer.expectClosed(1011);
    });
  }
  for (const broken of ['[null,"1","phoenix","heartbeat",{}]', "{", "5", ""]) {
    test(`${broken || "an empty message"}: close 1011`, async () => {
      const peer = await open("vsn=1.0.0");
      peer.send(broken);
      await peer.expectClosed(1011);
    });
  }
  test("a binary message: close 1011", async () => {
    const peer = await open("vsn=1.0.0");
    peer.send(Buffer.from([0, 0, 0, 0, 0]));
    await peer.expectClosed(1011);
  });
});

describe("§2.3 V2 binary", () => {
  /** A client's push: `00 | lengths | join_ref ref topic event | data`. */
  function push(joinRef, ref, topic, event, data) {
    const slots = [joinRef, ref, topic, event].map((slot) => Buffer.from(slot));
    return Buffer.concat([Buffer.from([0, ...slots.map((slot) => slot.length)]), ...slots, Buffer.from(data)]);
  }

  test("golden: push in a reply's path, the reply, a broadcast", async () => {
    const peer = await open();
    peer.send(["7", "1", "room:a", "phx_join", {}]);
    await peer.expect(reply("7", "1", "room:a", "ok"));
    peer.send(push("7", "28", "room:a", "push_bin", [9, 8, 7]));
    const bytes = (...parts) => Buffer.concat(parts.map((part) => Buffer.from(part)));
    await peer.expect(
      bytes([0, 1, 6, 10], "7", "room:a", "pushed_bin", [9, 8, 7]),
      bytes([1, 1, 2, 6, 2], "7", "28", "room:a", "ok", [9, 8, 7]),
    );
    peer.send(["7", "29", "room:a", "shout_bin", {}]);
    await peer.expect(bytes([2, 6, 9], "room:a", "bcast_bin", [1, 2, 3]));
  });

  test("data may be empty, and any bytes", async () => {
    const [peer, topic] = await joined();
    for (const data of [[], [0], Array.from({ length: 256 }, (_, n) => n)]) {
      peer.send(push("1", "é2", topic, "echo", data));
      const head = [1, 1, 3, topic.length, 2];
      await peer.expect(Buffer.concat([Buffer.from(head), Buffer.from(`1é2${topic}ok`), Buffer.from(data)]));
    }
  });

  test("slots of 255 bytes", async () => {
    const [peer, topic] = await joined(`room:${"x".repeat(250)}`);
    peer.send(push("1", "r".repeat(255), topic, "echo", [1]));
    const head = Buffer.from([1, 1, 255, 255, 2]);
    await peer.expect(Buffer.concat([head, Buffer.from(`1${"r".repeat(255)}${topic}ok`), Buffer.from([1])]));
  });

  test("text and binary messages mix", async () => {
    const [peer, topic] = await joined();
    peer.send(["1", "2", topic, "echo", { n: 1 }]);
    await peer.expect(reply("1", "2", topic, "ok", { n: 1 }));
    peer.send(push("1", "3", topic, "list", [1]));
    await peer.expect(reply("1", "3", topic, "ok", [1, 2, 3]));
    peer.send(push("1", "4", "nowhere", "x", [1]));
    await peer.expect(unmatched("4", "nowhere"));
  });

  test("a join with a binary payload", async () => {
    const [peer, topic] = [await open(), fresh()];
    peer.send(push("1", "1", topic, "phx_join", [1, 2, 3]));
    await peer.expect(reply("1", "1", topic, "ok"));
  });

  test("an empty join_ref is not null: dropped silently", async () => {
    const [peer, topic] = await joined();
    peer.send(push("", "2", topic, "echo", [1]));
    await peer.expectNothing();
  });

  const good = push("1", "2", "room:a", "echo", []);
  const broken = [
    ["nothing at all", Buffer.alloc(0)],
    ["a kind that only servers send", Buffer.concat([Buffer.from([1]), good.subarray(1)])],
    ["a kind that is none", Buffer.concat([Buffer.from([255]), good.subarray(1)])],
    ["lengths cut off", good.subarray(0, 3)],
    ["slots cut off", good.subarray(0, good.length - 1)],
  ];
  for (const [what, bytes] of broken) {
    test(`${what}: close 1011`, async () => {
      const peer = await open();
      peer.send(bytes);
      await peer.expectClosed(1011);
    });
  }
});

describe("§3 the routing table", () => {
  test("row 1: a heartbeat, whatever it carries", async () => {
    const peer = await open();
    for (const [joinRef, ref, payload] of [[null, "1", {}], ["9", "2", {}], [null, 3, "x"], [null, null, null]]) {
      peer.send([joinRef, ref, "phoenix", "heartbeat", payload]);
      await peer.expect(reply(null, ref, "phoenix", "ok"));
    }
  });

  test("row 2: a join with a route runs", async () => {
    const peer = await open();
    for (const topic of ["room:", "room:a:b", "realtime:x", "exact"]) {
      peer.send(["1", "2", topic, "phx_join", {}]);
      await peer.expect(reply("1", "2", topic, "ok"));
    }
  });

  test("row 2: a join that refuses, and one that panics", async () => {
    const peer = await open();
    peer.send(["1", "1", "room:deny", "phx_join", { k: 1 }]);
    await peer.expect(reply("1", "1", "room:deny", "error", { reason: "unauthorized", got: { k: 1 } }));
    peer.send(["2", "2", "room:crash", "phx_join", {}]);
    await peer.expect(reply("2", "2", "room:crash", "error", { reason: "join crashed" }));
    for (const topic of ["room:deny", "room:crash"]) {
      peer.send([null, "3", topic, "echo", {}]);
      await peer.expect(unmatched("3", topic));
    }
  });

  test("row 2: 100 channels and not one more, and leaving makes room", async () => {
    const peer = await open();
    const topic = (n) => `room:many${n}`;
    for (let n = 0; n < 100; n++) {
      peer.send(["1", `${n}`, topic(n), "phx_join", {}]);
      await peer.expect(reply("1", `${n}`, topic(n), "ok"));
    }
    const full = { reason: "too many channels joined" };
    peer.send(["8", "9", topic(100), "phx_join", {}]);
    await peer.expect(reply("8", "9", topic(100), "error", full));
    peer.send(["8", "10", "nowhere", "phx_join", {}]);
    await peer.expect(unmatched("10", "nowhere"));
    peer.send(["1", "11", topic(0), "phx_leave", {}]);
    await peer.expect(reply("1", "11", topic(0), "ok"), ["1", "1", topic(0), "phx_close", {}]);
    peer.send(["8", "12", topic(100), "phx_join", {}]);
    await peer.expect(reply("8", "12", topic(100), "ok"));
  });

  test("row 3: a join without a route", async () => {
    const peer = await open();
    for (const topic of ["nowhere", "room", "exact2", "exac", "Room:a", ""]) {
      peer.send(["1", "2", topic, "phx_join", {}]);
      await peer.expect(unmatched("2", topic));
    }
  });

  test("row 4 and §3.1: joining again: the new join's reply, then the old one's phx_close", async () => {
    const [peer, topic] = await joined();
    peer.send(["2", "2", topic, "phx_join", {}]);
    await peer.expect(reply("2", "2", topic, "ok"), ["1", "1", topic, "phx_close", {}]);
    peer.send(["2", "3", topic, "shout_reply", {}]);
    await peer.expect([null, null, topic, "shout", {}], reply("2", "3", topic, "ok"));
    peer.send(["1", "4", topic, "echo", {}]);
    await peer.expectNothing();
  });

  for (const [what, joinRef] of [["its join_ref", "1"], ["null", null]]) {
    test(`row 5: leaving with ${what}: a reply, then phx_close`, async () => {
      const [peer, topic] = await joined();
      peer.send([joinRef, "2", topic, "phx_leave", {}]);
      await peer.expect(reply("1", "2", topic, "ok"), ["1", "1", topic, "phx_close", {}]);
      peer.send(["1", "3", topic, "echo", {}]);
      await peer.expect(unmatched("3", topic));
    });
  }

  for (const stale of ["0", 1, ""]) {
    test(`row 5: leaving with the join_ref ${JSON.stringify(stale)}, which is none: dropped`, async () => {
      const [peer, topic] = await joined();
      peer.send([stale, "2", topic, "phx_leave", {}]);
      await peer.expectNothing();
      peer.send(["1", "3", topic, "echo", {}]);
      await peer.expect(reply("1", "3", topic, "ok"));
    });
    test(`row 6: a push with the join_ref ${JSON.stringify(stale)}, which is none: dropped, no reply`, async () => {
      const [peer, topic] = await joined();
      peer.send([stale, "2", topic, "echo", {}]);
      await peer.expectNothing();
    });
  }

  test("row 6: a push with its join_ref or null: to the channel", async () => {
    const [peer, topic] = await joined();
    for (const joinRef of ["1", null]) {
      peer.send([joinRef, "2", topic, "echo", { n: 1 }]);
      await peer.expect(reply("1", "2", topic, "ok", { n: 1 }));
    }
  });

  test("row 6: a join_ref is compared as it is: 7 is not \"7\"", async () => {
    const [peer, topic] = [await open(), fresh()];
    peer.send([7, 1, topic, "phx_join", {}]);
    await peer.expect(reply(7, 1, topic, "ok"));
    peer.send(["7", "2", topic, "echo", {}]);
    peer.send([7, 3, topic, "echo", {}]);
    await peer.expect(reply(7, 3, topic, "ok"));
  });

  test("row 7: leaving what is not joined: ok with the request's join_ref, no phx_close", async () => {
    const peer = await open();
    for (const [joinRef, topic] of [["4", "room:never"], [null, "nowhere"], [5, "phoenix"]]) {
      peer.send([joinRef, "2", topic, "phx_leave", {}]);
      await peer.expect(reply(joinRef, "2", topic, "ok"));
    }
    await peer.expectNothing();
  });

  test("row 8: anything else for what is not joined", async () => {
    const peer = await open();
    const rows = [["room:never", "echo"], ["nowhere", "x"], ["phoenix", "other"], ["phoenix", "phx_join"]];
    for (const [topic, event] of rows) {
      peer.send(["9", "2", topic, event, {}]);
      await peer.expect(unmatched("2", topic));
    }
  });

  test("row 8: a topic or an event that is no string", async () => {
    const peer = await open();
    for (const [topic, event] of [[5, "x"], [null, "phx_join"], [{ a: 1 }, "heartbeat"], ["room:never", 5], ["t", null]]) {
      peer.send([null, "2", topic, event, {}]);
      await peer.expect(unmatched("2", topic));
    }
  });
});

describe("§3 a slow join", () => {
  test("later input of its connection waits in order; nobody else does", async () => {
    const [slow, [other, topic]] = [await open(), await joined()];
    const order = [];
    slow.send(["1", "1", "room:slow", "phx_join", {}]);
    slow.send([null, "2", "phoenix", "heartbeat", {}]);
    slow.send(["1", "3", "room:slow", "echo", { n: 1 }]);
    slow.send(["1", "4", "room:slow", "phx_leave", {}]);
    const first = slow.next().then((message) => { order.push("slow"); return message; });
    for (let n = 0; n < 20; n++) {
      other.send(["1", `${n}`, topic, "echo", {}]);
      await other.expect(reply("1", `${n}`, topic, "ok"));
    }
    order.push("other");
    assert.deepEqual(await first, reply("1", "1", "room:slow", "ok"));
    assert.deepEqual(order, ["other", "slow"]);
    await slow.expect(
      reply(null, "2", "phoenix", "ok"),
      reply("1", "3", "room:slow", "ok", { n: 1 }),
      reply("1", "4", "room:slow", "ok"),
      ["1", "1", "room:slow", "phx_close", {}],
    );
  });

  test("a connection that goes away while it joins leaves nothing behind", async () => {
    const gone = await open();
    gone.send(["1", "1", "room:slow", "phx_join", {}]);
    gone.close();
    const peer = await open();
    peer.send(["1", "1", "room:slow", "phx_join", {}]);
    await peer.expect(reply("1", "1", "room:slow", "ok"));
    peer.send(["1", "2", "room:slow", "shout_reply", {}]);
    await peer.expect([null, null, "room:slow", "shout", {}], reply("1", "2", "room:slow", "ok"));
  });
});

describe("§3.2 how a channel ends", () => {
  const error = (topic) => ["1", "1", topic, "phx_error", { reason: "channel_crash" }];
  const close = (topic) => ["1", "1", topic, "phx_close", {}];
  const rows = [
    ["stop_normal", (topic) => [close(topic)]],
    ["stop_shutdown", (topic) => [reply("1", "2", topic, "ok", { bye: true }), close(topic)]],
    ["stop_other", (topic) => [error(topic)]],
    ["exit_normal", (topic) => [error(topic)]],
    ["crash", (topic) => [error(topic)]],
    ["an unknown event", (topic) => [error(topic)]],
    ["phx_reply", (topic) => [error(topic)]],
  ];
  for (const [event, says] of rows) {
    test(`${event}: ${says("t").map((message) => message[3]).join(", ")}; then unmatched; the others live on`, async () => {
      const [peer, topic] = await joined();
      const sibling = fresh();
      peer.send(["5", "5", sibling, "phx_join", {}]);
      await peer.expect(reply("5", "5", sibling, "ok"));
      peer.send(["1", "2", topic, event, {}]);
      await peer.expect(...says(topic));
      peer.send(["1", "3", topic, "echo", {}]);
      await peer.expect(unmatched("3", topic));
      peer.send(["5", "6", sibling, "echo", {}]);
      await peer.expect(reply("5", "6", sibling, "ok"));
      peer.send(["7", "7", topic, "phx_join", {}]);
      await peer.expect(reply("7", "7", topic, "ok"));
    });
  }

  test("what ended hears no more broadcasts", async () => {
    const [peer, topic] = await joined();
    const [other] = await joined(topic);
    peer.send(["1", "2", topic, "crash", {}]);
    await peer.expect(error(topic));
    other.send(["1", "2", topic, "shout_reply", {}]);
    await other.expect([null, null, topic, "shout", {}], reply("1", "2", topic, "ok"));
    await peer.expectNothing();
  });

  test("a reply can come after the channel ended", async () => {
    const [peer, topic] = await joined();
    peer.send(["1", "2", topic, "async", { n: 1 }]);
    peer.send(["1", "3", topic, "phx_leave", {}]);
    await peer.expect(reply("1", "3", topic, "ok"), close(topic), reply("1", "2", topic, "ok", { n: 1 }));
  });
});

describe("§3.3 disconnect by the socket's id", () => {
  test("1001 for every connection of the id, without phx_close; the others stay", async () => {
    const [first, second, other, none] = [
      await open("vsn=2.0.0&uid=a"), await open("vsn=1.0.0&uid=a"), await open("vsn=2.0.0&uid=b"), await open(),
    ];
    const topic = fresh();
    for (const peer of [first, other, none]) {
      peer.send(["1", "1", topic, "phx_join", {}]);
      await peer.expect(reply("1", "1", topic, "ok"));
    }
    first.send(["1", "2", topic, "disconnect_me", {}]);
    await first.expectClosed(1001);
    await second.expectClosed(1001);
    await other.expectNothing();
    await none.expectNothing();
  });
});

describe("§3.4 close codes", () => {
  const MASK = [1, 2, 3, 4];
  /** A masked frame of a few bytes. */
  const frame = (first, ...payload) => [first, 0x80 | payload.length, ...MASK, ...payload.map((b, n) => b ^ MASK[n % 4])];

  test("idle: 1002", async () => {
    const peer = await open("vsn=2.0.0", "/quick");
    await peer.expectClosed(1002);
  });

  test("idle: what the server sends does not count", async () => {
    const [peer, other, topic] = [await open("vsn=2.0.0", "/quick"), (await joined())[0], fresh()];
    peer.send(["1", "1", topic, "phx_join", {}]);
    await peer.expect(reply("1", "1", topic, "ok"));
    other.send(["1", "1", topic, "phx_join", {}]);
    await other.expect(reply("1", "1", topic, "ok"));
    let [delivered, open_] = [0, true];
    peer.closed.then(() => (open_ = false));
    peer.socket.on("message", () => delivered++);
    while (open_) {
      other.send(["1", "2", topic, "shout_reply", {}]);
      await other.next();
      await other.next();
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    assert.equal((await peer.closed).code, 1002);
    assert.ok(delivered > 1, `${delivered} broadcasts on an idle connection`);
  });

  for (const [what, act] of [
    ["a ping", (peer) => peer.socket.ping("x")],
    ["a pong", (peer) => peer.socket.pong("x")],
    ["a message", (peer) => peer.send([null, "1", "phoenix", "heartbeat", {}])],
  ]) {
    test(`idle: ${what} counts as life`, async () => {
      const peer = await open("vsn=2.0.0", "/quick");
      // Far more often than every 1.5 s, as nobody's timers are exact; and for longer than that.
      for (let n = 0; n < 25; n++) {
        act(peer);
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      assert.equal(peer.socket.readyState, peer.socket.OPEN, "closed although something came");
      assert.equal((await peer.closed).code, 1002);
    });
  }

  test("a message too large: 1009; one below the limit passes", async () => {
    const [peer, topic] = await joined();
    const text = "x".repeat(999_000);
    peer.send(["1", "2", topic, "echo", { text }]);
    await peer.expect(reply("1", "2", topic, "ok", { text }));
    peer.send(["1", "3", topic, "echo", { text: "x".repeat(1_000_001) }]);
    await peer.expectClosed(1009);
  });

  test("fragments that are too large together: 1009", async () => {
    const peer = await open();
    const part = "x".repeat(300_000);
    for (let n = 0; n < 4; n++) peer.socket.send(part, { fin: false });
    await peer.expectClosed(1009);
  });

  for (const [what, frames, code] of [
    ["an unmasked frame", [0x81, 0x01, 0x41], 1002],
    ["a reserved bit", frame(0xc1, 0x41), 1002],
    ["a reserved opcode", frame(0x83, 0x41), 1002],
    ["a stray continuation", frame(0x80, 0x41), 1002],
    ["text that is not UTF-8", frame(0x81, 0xff), 1007],
    ["a Close with an invalid code", frame(0x88, 0x03, 0xed), 1002],
    ["a Close of one byte", frame(0x88, 0x03), 1002],
  ]) {
    test(`${what}: ${code}`, async () => {
      const peer = await open();
      peer.sendRaw(frames);
      await peer.expectClosed(code);
    });
  }

  test("an empty fragment in the middle is accepted", async () => {
    const peer = await open();
    peer.socket.send('[null,"1","phoenix",', { fin: false });
    peer.socket.send("", { fin: false });
    peer.socket.send('"heartbeat",{}]', { fin: true });
    await peer.expect(reply(null, "1", "phoenix", "ok"));
  });

  for (const code of [1000, 1001, 3000, 4999]) {
    test(`the client closes with ${code}: the same comes back`, async () => {
      const [peer] = await joined();
      peer.socket.close(code, "bye");
      await peer.expectClosed(code);
    });
  }

  test("the client closes without a code: 1000 or none", async () => {
    const peer = await open();
    peer.socket.close();
    const { code } = await peer.closed;
    assert.ok([1000, 1005].includes(code), `${code}`);
  });

  test("drain: 1012, with a channel and without one, and status 0", async () => {
    const server = await Fixture.start();
    const all = await Promise.all(["vsn=2.0.0", "vsn=2.0.0&uid=x", "vsn=1.0.0"].map((query) =>
      Peer.open(`ws://127.0.0.1:${server.port}/socket/websocket?${query}`)));
    all[0].send(["1", "1", "room:a", "phx_join", {}]);
    await all[0].expect(reply("1", "1", "room:a", "ok"));
    const closed = all.map((peer) => peer.expectClosed(1012));
    await server.stop();
    await Promise.all(closed);
  });
});

describe("§6 presence", () => {
  const topicOf = () => fresh("room:pres");
  /** Joins, and reads the reply, the state, and the diff that may come before or after it. */
  async function present(topic, key, meta) {
    const peer = await open();
    peer.send(["1", "1", topic, "phx_join", { key, meta }]);
    await peer.expect(reply("1", "1", topic, "ok"));
    const [a, b] = [await peer.next(), await peer.next()];
    const [state, diff] = a[3] === "presence_state" ? [a, b] : [b, a];
    assert.deepEqual(state.slice(0, 4), ["1", null, topic, "presence_state"], "a push");
    assert.deepEqual(diff.slice(0, 4), [null, null, topic, "presence_diff"], "a broadcast");
    return { peer, state: state[4], diff: diff[4] };
  }
  const metasOf = (entry) => entry.metas.map(({ phx_ref, phx_ref_prev, ...meta }) => meta);

  test("state, join, second meta under one key, leave", async () => {
    const topic = topicOf();
    const first = await present(topic, "ann", { on: "phone" });
    assert.deepEqual(Object.keys(first.state), ["ann"]);
    assert.deepEqual(metasOf(first.state.ann), [{ on: "phone" }]);
    assert.deepEqual(Object.keys(first.diff).sort(), ["joins", "leaves"]);
    assert.deepEqual(first.diff.leaves, {});
    assert.match(first.state.ann.metas[0].phx_ref, /^[A-Za-z0-9_-]+$/);
    assert.equal(first.diff.joins.ann.metas[0].phx_ref, first.state.ann.metas[0].phx_ref);

    const second = await present(topic, "ann", { on: "desk" });
    assert.deepEqual(metasOf(second.state.ann), [{ on: "phone" }, { on: "desk" }], "in the order of joining");
    const [, , , event, seen] = await first.peer.next();
    assert.equal(event, "presence_diff");
    assert.deepEqual(metasOf(seen.joins.ann), [{ on: "desk" }], "the diff holds the new meta alone");

    second.peer.send(["1", "2", topic, "phx_leave", {}]);
    await second.peer.expect(reply("1", "2", topic, "ok"), ["1", "1", topic, "phx_close", {}]);
    const left = (await first.peer.next())[4];
    assert.deepEqual([left.joins, metasOf(left.leaves.ann)], [{}, [{ on: "desk" }]]);
    assert.equal(left.leaves.ann.metas[0].phx_ref, second.state.ann.metas[1].phx_ref);
  });

  test("an update is one diff: the new meta in joins with phx_ref_prev, the old one in leaves", async () => {
    const topic = topicOf();
    const { peer, state } = await present(topic, "bob", { n: 1 });
    peer.send(["1", "2", topic, "update", { key: "bob", meta: { n: 2 } }]);
    const messages = [await peer.next(), await peer.next()];
    const diff = messages.find((message) => message[3] === "presence_diff")[4];
    assert.deepEqual(messages.find((message) => message[3] === "phx_reply").slice(0, 3), ["1", "2", topic]);
    assert.deepEqual([metasOf(diff.joins.bob), metasOf(diff.leaves.bob)], [[{ n: 2 }], [{ n: 1 }]]);
    const before_ = state.bob.metas[0].phx_ref;
    assert.equal(diff.joins.bob.metas[0].phx_ref_prev, before_);
    assert.equal(diff.leaves.bob.metas[0].phx_ref, before_);
    assert.notEqual(diff.joins.bob.metas[0].phx_ref, before_);
    const [, , , , { response }] = await peer.ask(["1", "3", topic, "plist", {}]);
    assert.deepEqual(metasOf(response.bob), [{ n: 2 }]);
  });

  for (const [how, end] of [
    ["crashes", (peer, topic) => peer.send(["1", "2", topic, "crash", {}])],
    ["stops", (peer, topic) => peer.send(["1", "2", topic, "stop_normal", {}])],
    ["closes its connection", (peer) => peer.socket.close(1000)],
    ["vanishes", (peer) => peer.close()],
  ]) {
    test(`who ${how} leaves`, async () => {
      const topic = topicOf();
      const { peer: stays } = await present(topic, "stays", {});
      const { peer: goes } = await present(topic, "goes", { n: 1 });
      await stays.next("the other's join");
      end(goes, topic);
      const diff = (await stays.next("the other's leave"))[4];
      assert.deepEqual([diff.joins, metasOf(diff.leaves.goes)], [{}, [{ n: 1 }]]);
      const [, , , , { response }] = await stays.ask(["1", "3", topic, "plist", {}]);
      assert.deepEqual(Object.keys(response), ["stays"]);
    });
  }
});
