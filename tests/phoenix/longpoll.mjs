// Long-poll, request by request, over plain HTTP.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Fixture, reply, request, unmatched } from "./lib.mjs";

let fixture;
let topics = 0;
const fresh = () => `room:p${++topics}`;

before(async () => {
  fixture = await Fixture.start();
});
after(() => fixture?.kill());

async function json(path, options) {
  const answer = await request(fixture.port, path, options);
  assert.equal(answer.status, 200);
  assert.equal(answer.headers["content-type"], "application/json; charset=utf-8");
  assert.equal(answer.headers["access-control-allow-origin"], "*");
  assert.equal(answer.headers["cache-control"], "no-store");
  return JSON.parse(answer.body);
}

class Session {
  static async open(mount = "/socket", query = "vsn=2.0.0") {
    const session = new Session();
    session.url = (token) => `${mount}/longpoll?${query}&token=${encodeURIComponent(token)}`;
    const opened = await json(`${mount}/longpoll?${query}`);
    assert.deepEqual({ ...opened, token: typeof opened.token }, { status: 410, token: "string", messages: [] });
    session.token = opened.token;
    return session;
  }

  async poll() {
    const answer = await json(this.url(this.token));
    if (answer.token) this.token = answer.token;
    return answer;
  }

  /** Posts messages as the official client does. */
  post(...messages) {
    const body = messages.map((message) => (typeof message === "string" ? message : JSON.stringify(message))).join("\n");
    return json(this.url(this.token), { method: "POST", headers: { "content-type": "application/x-ndjson" }, body });
  }

  /** The next messages are exactly these, however many polls they take. */
  async expect(...messages) {
    const got = [];
    while (got.length < messages.length) {
      const { status, messages: some } = await this.poll();
      assert.ok(status === 200 || status === 204, `a poll answered ${status}`);
      got.push(...some.map((text) => JSON.parse(text)));
    }
    assert.deepEqual(got, messages);
  }
}

const OK = { status: 200 };

describe("§7 sessions", () => {
  test("a first poll opens one: 410 with a token", () => Session.open());

  for (const [what, query] of [["connect refuses", "vsn=2.0.0&reject=1"], ["connect has an error", "vsn=2.0.0&rl=1"],
    ["no such vsn", "vsn=9.0.0"]]) {
    test(`${what}: 403`, async () => {
      assert.deepEqual(await json(`/socket/longpoll?${query}`), { status: 403 });
    });
  }

  test("a token that is none opens a new session", async () => {
    const answer = await json("/socket/longpoll?vsn=2.0.0&token=nonsense");
    assert.equal(answer.status, 410);
    assert.equal(typeof answer.token, "string");
  });

  test("a post without a session: 410", async () => {
    assert.equal((await json("/socket/longpoll?vsn=2.0.0&token=nonsense", { method: "POST", body: "[]" })).status, 410);
  });

  test("the token in the header wins over the query", async () => {
    const session = await Session.open();
    await session.post([null, "1", "phoenix", "heartbeat", {}]);
    const headers = { "x-phoenix-longpoll-token": session.token };
    const answer = await json("/socket/longpoll?vsn=2.0.0&token=nonsense", { headers });
    assert.equal(answer.status, 200);
    assert.deepEqual(answer.messages.map((text) => JSON.parse(text)), [reply(null, "1", "phoenix", "ok")]);
  });

  test("a session that nobody polls ends after 1.5 windows", async () => {
    const session = await Session.open("/quick");
    let status;
    while (status !== 410) {
      // Longer than it may live without a poll, so that a poll does not keep it alive.
      await new Promise((resolve) => setTimeout(resolve, 1_000));
      ({ status } = await session.poll());
    }
  });

  test("disconnect by id ends it", async () => {
    const session = await Session.open("/socket", "vsn=2.0.0&uid=lp");
    await session.post(["1", "1", "room:lp", "phx_join", {}]);
    await session.expect(reply("1", "1", "room:lp", "ok"));
    await session.post(["1", "2", "room:lp", "disconnect_me", {}]);
    while ((await session.poll()).status !== 410);
  });
});

describe("§7 messages", () => {
  test("join, echo, broadcast, leave", async () => {
    const [session, topic] = [await Session.open(), fresh()];
    assert.deepEqual(await session.post(["1", "1", topic, "phx_join", {}]), OK);
    await session.expect(reply("1", "1", topic, "ok"));
    assert.deepEqual(await session.post(["1", "2", topic, "shout_reply", { n: 1 }]), OK);
    await session.expect([null, null, topic, "shout", { n: 1 }], reply("1", "2", topic, "ok"));
    await session.post(["1", "3", topic, "phx_leave", {}]);
    await session.expect(reply("1", "3", topic, "ok"), ["1", "1", topic, "phx_close", {}]);
  });

  test("an error and what is unmatched are replies: the post is 200", async () => {
    const session = await Session.open();
    assert.deepEqual(await session.post([null, "1", "nowhere", "x", {}]), OK);
    await session.expect(unmatched("1", "nowhere"));
  });

  test("a batch is worked off in order; \\n and \\r\\n separate", async () => {
    const [session, topic] = [await Session.open(), fresh()];
    const echo = (n) => JSON.stringify(["1", `${n}`, topic, "echo", { n }]);
    await session.post(["1", "1", topic, "phx_join", {}], `${echo(2)}\r\n${echo(3)}`, echo(4));
    const echoed = (n) => reply("1", `${n}`, topic, "ok", { n });
    await session.expect(reply("1", "1", topic, "ok"), echoed(2), echoed(3), echoed(4));
  });

  test("100 of a batch count, the rest is ignored", async () => {
    const session = await Session.open();
    const beat = (n) => [null, `${n}`, "phoenix", "heartbeat", {}];
    await session.post(...Array.from({ length: 103 }, (_, n) => beat(n)));
    await session.post(beat("last"));
    const refs = [...Array.from({ length: 100 }, (_, n) => `${n}`), "last"];
    await session.expect(...refs.map((ref) => reply(null, ref, "phoenix", "ok")));
  });

  test("any other content type: the body is one message", async () => {
    const session = await Session.open();
    const body = JSON.stringify([null, "1", "phoenix", "heartbeat", {}], null, 1);
    for (const type of ["application/json", "text/plain", "application/x-ndjson; charset=utf-8"]) {
      const headers = { "content-type": type };
      assert.deepEqual(await json(session.url(session.token), { method: "POST", headers, body }), OK);
      await session.expect(reply(null, "1", "phoenix", "ok"));
    }
  });

  test("binary goes in as base64", async () => {
    const [session, topic] = [await Session.open(), fresh()];
    await session.post(["1", "1", topic, "phx_join", {}]);
    const slots = ["1", "2", topic, "list"];
    const binary = Buffer.concat([Buffer.from([0, ...slots.map((slot) => slot.length)]), Buffer.from(slots.join("")), Buffer.from([0, 255])]);
    await session.post(binary.toString("base64"));
    await session.expect(reply("1", "1", topic, "ok"), reply("1", "2", topic, "ok", [1, 2, 3]));
  });

  test("V1: one object per post", async () => {
    const [session, topic] = [await Session.open("/socket", "vsn=1.0.0"), fresh()];
    const body = JSON.stringify({ topic, event: "phx_join", payload: {}, ref: "1" });
    await json(session.url(session.token), { method: "POST", headers: { "content-type": "application/json" }, body });
    await session.expect({ topic, event: "phx_reply", ref: "1", payload: { status: "ok", response: {} } });
  });

  test("a poll waits for a message, and an empty one ends with the window: 204", async () => {
    const session = await Session.open("/quick");
    assert.deepEqual((({ status, messages }) => ({ status, messages }))(await session.poll()), { status: 204, messages: [] });
    const waiting = session.poll();
    await session.post([null, "1", "phoenix", "heartbeat", {}]);
    const { messages } = await waiting;
    assert.deepEqual(messages.map((text) => JSON.parse(text)), [reply(null, "1", "phoenix", "ok")]);
  });
});

describe("§7 methods", () => {
  test("OPTIONS: what a browser asks before it posts", async () => {
    const headers = { "access-control-request-headers": "x-a, x-b" };
    const answer = await request(fixture.port, "/socket/longpoll", { method: "OPTIONS", headers });
    assert.equal(answer.status, 200);
    assert.equal(answer.headers["access-control-allow-headers"], "x-a, x-b");
    assert.equal(answer.headers["access-control-allow-methods"], "get, post, options");
    assert.equal(answer.headers["access-control-max-age"], "3600");
  });

  for (const method of ["PUT", "DELETE", "PATCH"]) {
    test(`${method}: 400`, async () => {
      assert.equal((await request(fixture.port, "/socket/longpoll?vsn=2.0.0", { method })).status, 400);
    });
  }

  test("a mount without long-poll has none: 404", async () => {
    assert.equal((await request(fixture.port, "/conn/longpoll?vsn=2.0.0")).status, 404);
  });
});
