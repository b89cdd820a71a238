// The official client, two of its versions, unchanged, against the fixture: over WebSocket and over long-poll.
import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import * as phoenix1816 from "phoenix";
import * as phoenix1812 from "phoenix-1812";
import WebSocket from "ws";
import { Fixture, Inbox, PATIENCE_MS, Peer, within } from "./lib.mjs";

const VERSIONS = { "1.8.16": phoenix1816, "1.8.12": phoenix1812 };

let fixture;
let sockets = [];
let topics = 0;

before(async () => {
  fixture = await Fixture.start();
});
after(() => fixture?.kill());
afterEach(() => {
  sockets.forEach((socket) => socket.disconnect());
  sockets = [];
});

const fresh = (prefix = "room:c") => `${prefix}${++topics}`;

/** A WebSocket that remembers every connection: whether it opened, and with which code it closed. */
function recording() {
  return class Recorded extends WebSocket {
    static all = [];
    constructor(...args) {
      super(...args);
      this.record = { opened: false, closed: null };
      Recorded.all.push(this.record);
      this.on("open", () => (this.record.opened = true));
      this.record.gone = new Promise((resolve) => this.on("close", resolve)).then((code) => (this.record.closed = code));
    }

    /** The codes that open connections closed with. */
    static codes() {
      return this.all.filter(({ opened, closed }) => opened && closed !== null).map(({ closed }) => closed);
    }
  };
}

/** The in-memory storage that the client wants where there is no browser. */
class Storage {
  items = {};
  getItem(key) { return this.items[key] ?? null; }
  setItem(key, value) { this.items[key] = value; }
  removeItem(key) { delete this.items[key]; }
}

/** A connected socket. Rejoins are quick, so that nobody waits for the default second; answers may take their time. */
async function connect({ Socket }, options = {}, { mount = "/socket", server = fixture } = {}) {
  const opened = new Inbox();
  const closed = new Inbox();
  const base = { transport: WebSocket, sessionStorage: new Storage(), rejoinAfterMs: () => 50, timeout: PATIENCE_MS };
  const all = { ...base, ...options };
  const socket = new Socket(server.mount(mount), all);
  sockets.push(socket);
  socket.onOpen(() => opened.put(true));
  socket.onClose((event) => closed.put(event?.code));
  socket.connect();
  await opened.take("the socket to open");
  return Object.assign(socket, { opened, closed });
}

/** A socket that the server refuses: an error, and no open. */
async function refused({ Socket }, options, mount = "/socket") {
  const all = { sessionStorage: new Storage(), reconnectAfterMs: () => 60_000, ...options };
  const socket = new Socket(fixture.mount(mount), all);
  sockets.push(socket);
  const events = new Inbox();
  socket.onOpen(() => events.put("open"));
  socket.onError(() => events.put("error"));
  socket.connect();
  assert.equal(await events.take("an error"), "error");
}

/** The outcome of a push: `[status, response]`. */
function outcome(push) {
  const arrived = new Promise((resolve) => {
    for (const status of ["ok", "error", "weird_status", "timeout"]) {
      push.receive(status, (response) => resolve([status, response]));
    }
  });
  return within(arrived, `an answer to ${push.event}`);
}

/** A joined channel whose every join ends up in `joins` as `{joinRef, status}`. */
async function join(socket, topic = fresh(), params = {}) {
  const channel = socket.channel(topic, params);
  channel.joins = new Inbox();
  for (const status of ["ok", "error"]) {
    channel.joinPush.receive(status, (response) => channel.joins.put({ joinRef: channel.joinRef(), status, response }));
  }
  channel.join();
  const { status } = await channel.joins.take(`${topic} to be joined`);
  assert.equal(status, "ok");
  return channel;
}

/** All events of these names, in order, as `[name, payload]`. */
function listen(channel, ...events) {
  const inbox = new Inbox();
  for (const event of events) channel.on(event, (payload) => inbox.put([event, payload]));
  return inbox;
}

/** A message of a channel's own comes after everything that was on the way to it. */
const fence = (channel) => outcome(channel.push("echo", { fence: true }));

const bytes = (...values) => new Uint8Array(values).buffer;

/** What must hold on either transport. */
function everywhere(client, options) {
  const open = (more = {}, where = {}) => connect(client, { ...options(), ...more }, where);

  test("join: ok, with and without a response", async () => {
    const socket = await open();
    assert.deepEqual(await outcome(socket.channel(fresh()).join()), ["ok", {}]);
    const answer = await outcome(socket.channel("room:reply", { a: { b: [1] } }).join());
    assert.deepEqual(answer, ["ok", { joined: true, p: { a: { b: [1] } } }]);
    assert.deepEqual(await outcome(socket.channel("exact").join()), ["ok", {}]);
    assert.deepEqual(await outcome(socket.channel(fresh("realtime:")).join()), ["ok", {}]);
  });

  test("join: refused, and tried again with the rejoin backoff", async () => {
    const socket = await open();
    const channel = socket.channel("room:deny1", { who: "me" });
    const refusals = new Inbox();
    channel.join().receive("error", (response) => refusals.put(response));
    for (let n = 0; n < 2; n++) {
      assert.deepEqual(await refusals.take(), { reason: "unauthorized", got: { who: "me" } });
    }
    channel.leave();
  });

  test("join: crashed, and unmatched", async () => {
    const socket = await open();
    const crash = socket.channel("room:crash");
    assert.deepEqual(await outcome(crash.join()), ["error", { reason: "join crashed" }]);
    crash.leave();
    const nowhere = socket.channel("nowhere:1");
    assert.deepEqual(await outcome(nowhere.join()), ["error", { reason: "unmatched topic" }]);
    nowhere.leave();
  });

  test("join: slow; pushes wait for it; other connections do not", async () => {
    const [slow, other] = [await open(), await open()];
    const quick = await join(other);
    const channel = slow.channel("room:slow");
    const order = [];
    const joined = outcome(channel.join()).then((answer) => { order.push("joined"); return answer; });
    const pushed = outcome(channel.push("echo", { n: 1 }));
    assert.deepEqual(await outcome(quick.push("echo", { n: 2 })), ["ok", { n: 2 }]);
    order.push("other");
    assert.deepEqual(await joined, ["ok", {}]);
    assert.deepEqual(await pushed, ["ok", { n: 1 }]);
    assert.deepEqual(order, ["other", "joined"]);
  });

  test("join: timed out; the leave that follows is for the join, and the topic works afterwards", async () => {
    const socket = await open({ rejoinAfterMs: () => 60_000 });
    const channel = socket.channel("room:slow");
    assert.deepEqual((await outcome(channel.join(100)))[0], "timeout");
    channel.leave();
    // The join that was given up comes first, so this one takes twice as long.
    assert.deepEqual(await outcome(socket.channel("room:slow").join()), ["ok", {}]);
  });

  test("replies of every kind", async () => {
    const channel = await join(await open());
    const rows = [
      ["echo", { a: 1, b: ["é", null] }, ["ok", { a: 1, b: ["é", null] }]],
      ["err", { why: "so" }, ["error", { why: "so" }]],
      ["custom", { n: 1 }, ["weird_status", { n: 1 }]],
      ["status_only", { n: 1 }, ["ok", {}]],
      ["list", {}, ["ok", [1, 2, 3]]],
      ["str", {}, ["ok", "str"]],
      ["async", { later: true }, ["ok", { later: true }]],
    ];
    for (const [event, payload, answer] of rows) {
      assert.deepEqual(await outcome(channel.push(event, payload)), answer, event);
    }
  });

  test("300 pushes at once: all replies, in order", async () => {
    const channel = await join(await open());
    const seen = [];
    const all = Array.from({ length: 300 }, (_, n) =>
      outcome(channel.push("echo", { n })).then(([, response]) => seen.push(response.n)));
    await Promise.all(all);
    assert.deepEqual(seen, Array.from({ length: 300 }, (_, n) => n));
  });

  test("broadcast: to everybody, before the reply that follows it", async () => {
    const [here, there] = [await open(), await open()];
    const topic = fresh();
    const [sender, other] = [await join(here, topic), await join(there, topic)];
    const [order, heard] = [listen(sender, "shout"), listen(other, "shout")];
    sender.push("shout_reply", { n: 1 }).receive("ok", () => order.put(["reply"]));
    assert.deepEqual(await order.take(), ["shout", { n: 1 }]);
    assert.deepEqual(await order.take(), ["reply"]);
    assert.deepEqual(await heard.take(), ["shout", { n: 1 }]);
    sender.push("shout", { n: 2 });
    assert.deepEqual(await order.take(), ["shout", { n: 2 }]);
    assert.deepEqual(await heard.take(), ["shout", { n: 2 }]);
  });

  test("broadcast_from: to everybody else", async () => {
    const [here, there] = [await open(), await open()];
    const topic = fresh();
    const [sender, other] = [await join(here, topic), await join(there, topic)];
    const [own, heard] = [listen(sender, "shout"), listen(other, "shout")];
    sender.push("shout_from", { n: 1 });
    assert.deepEqual(await heard.take(), ["shout", { n: 1 }]);
    await fence(sender);
    assert.deepEqual(own.rest, []);
  });

  test("push: to this channel alone", async () => {
    const [here, there] = [await open(), await open()];
    const topic = fresh();
    const [one, other] = [await join(here, topic), await join(there, topic)];
    const [own, foreign] = [listen(one, "pushed"), listen(other, "pushed")];
    one.push("push", { n: 1 });
    assert.deepEqual(await own.take(), ["pushed", { n: 1 }]);
    await fence(other);
    assert.deepEqual(foreign.rest, []);
  });

  test("intercepted: every channel hands it on itself", async () => {
    const [here, there] = [await open(), await open()];
    const topic = fresh();
    const channels = [await join(here, topic), await join(there, topic)];
    const inboxes = channels.map((channel) => listen(channel, "intercepted"));
    channels[0].push("intercept", { n: 1 });
    for (const inbox of inboxes) assert.deepEqual(await inbox.take(), ["intercepted", { n: 1, seen: true }]);
  });

  test("two topics on one socket do not mix", async () => {
    const socket = await open();
    const [one, other] = [await join(socket), await join(socket)];
    const [own, foreign] = [listen(one, "shout"), listen(other, "shout")];
    one.push("shout", { n: 1 });
    assert.deepEqual(await own.take(), ["shout", { n: 1 }]);
    await fence(other);
    assert.deepEqual(foreign.rest, []);
  });

  for (const event of ["crash", "exit_normal", "stop_other", "no_such_event"]) {
    test(`${event}: phx_error, then a rejoin with a new join_ref`, async () => {
      const channel = await join(await open());
      const before = channel.joinRef();
      const errors = new Inbox();
      channel.onError((reason) => errors.put(reason));
      channel.push(event, {});
      assert.deepEqual(await errors.take("phx_error"), { reason: "channel_crash" });
      const again = await channel.joins.take("the rejoin");
      assert.equal(again.status, "ok");
      assert.notEqual(again.joinRef, before);
      assert.deepEqual(await outcome(channel.push("echo", { n: 1 })), ["ok", { n: 1 }]);
    });
  }

  test("stop_normal and stop_shutdown: phx_close, the latter after a reply, and no rejoin", async () => {
    const socket = await open();
    for (const event of ["stop_normal", "stop_shutdown"]) {
      const channel = await join(socket);
      const order = new Inbox();
      channel.onClose(() => order.put("closed"));
      channel.push(event, {}).receive("ok", (response) => order.put(response));
      if (event === "stop_shutdown") assert.deepEqual(await order.take(), { bye: true });
      assert.equal(await order.take(), "closed");
      assert.equal(channel.state, "closed");
      assert.ok(!socket.channels.includes(channel));
    }
  });

  test("leave: ok, closed, and the topic can be joined again", async () => {
    const socket = await open();
    const channel = await join(socket);
    const closed = new Inbox();
    channel.onClose((reason) => closed.put(reason));
    assert.deepEqual(await outcome(channel.leave()), ["ok", {}]);
    assert.equal(await closed.take(), "leave");
    const again = await join(socket, channel.topic);
    assert.deepEqual(await outcome(again.push("echo", { n: 1 })), ["ok", { n: 1 }]);
  });

  test("a second channel on a joined topic takes it over", async () => {
    const socket = await open();
    const old = await join(socket);
    const closed = new Inbox();
    old.onClose(() => closed.put(true));
    const heard = listen(old, "shout");
    const young = await join(socket, old.topic);
    await closed.take("the old channel to close");
    const inbox = listen(young, "shout");
    young.push("shout", { n: 1 });
    assert.deepEqual(await inbox.take(), ["shout", { n: 1 }]);
    assert.deepEqual(heard.rest, []);
  });

  test("presence: three clients agree while keys join, update and leave", async () => {
    const topic = fresh("room:pres");
    const members = [];
    const synced = new Inbox();
    const enter = async (key, meta) => {
      // A session that is polled no more ends with one and a half of its windows: short ones there.
      const socket = await open({}, { mount: options().transport === WebSocket ? "/socket" : "/quick" });
      const channel = socket.channel(topic, { key, meta });
      const member = { key, socket, channel, presence: new client.Presence(channel), joins: [], leaves: [] };
      member.presence.onJoin((who, before, now) => member.joins.push([who, before?.metas.length ?? 0, now.metas.length]));
      member.presence.onLeave((who, now) => member.leaves.push([who, now.metas.length]));
      member.presence.onSync(() => synced.put(member));
      members.push(member);
      await outcome(channel.join());
      return member;
    };
    const view = ({ presence }) =>
      Object.fromEntries(presence.list((key, { metas }) => [key, metas.map((meta) => meta.at).sort()]));
    // Waits until all see the same people; each sync is an occasion to look.
    const agree = async (expected) => {
      const settled = () => members.every((member) => {
        try { assert.deepEqual(view(member), expected); return true; } catch { return false; }
      });
      while (!settled()) await synced.take(`${JSON.stringify(expected)}, but: ${JSON.stringify(members.map(view))}`);
    };
    const ann = await enter("ann", { at: "desk" });
    await agree({ ann: ["desk"] });
    await enter("bob", { at: "phone" });
    await agree({ ann: ["desk"], bob: ["phone"] });
    const third = await enter("ann", { at: "train" });
    await agree({ ann: ["desk", "train"], bob: ["phone"] });
    // A key's own diff may come in addition to the state that has it already: the client tells of it twice.
    const others = ann.joins.filter(([who], at) => who !== "ann" || at === ann.joins.length - 1);
    assert.deepEqual([ann.joins[0], ...others], [["ann", 0, 1], ["bob", 0, 1], ["ann", 1, 1]]);

    assert.deepEqual((await outcome(members[1].channel.push("update", { key: "bob", meta: { at: "home" } })))[0], "ok");
    await agree({ ann: ["desk", "train"], bob: ["home"] });
    const [status, list] = await outcome(ann.channel.push("plist", {}));
    assert.equal(status, "ok");
    assert.deepEqual(list.ann.metas.map((meta) => meta.at), ["desk", "train"]);
    assert.deepEqual(list.bob.metas.map((meta) => meta.at), ["home"]);

    members.pop();
    third.channel.leave();
    await agree({ ann: ["desk"], bob: ["home"] });
    const [gone] = members.splice(1, 1);
    gone.socket.disconnect();
    await agree({ ann: ["desk"] });
    assert.deepEqual(ann.leaves.at(-1), ["bob", 0]);
  });

  test("params: nested ones, and a function asked again at each connect; the socket's id follows", async () => {
    let asked = 0;
    const params = () => ({ uid: `${client.Socket.name}-${++asked}`, deep: { a: [1], b: { c: "é&=" } } });
    const socket = await open({ params });
    const channel = await join(socket);
    for (let n = 1; n <= 2; n++) {
      assert.equal(asked, n);
      channel.push("disconnect_me", {});
      await socket.opened.take("the reconnect");
      assert.equal((await channel.joins.take("the rejoin")).status, "ok");
    }
  });

  test("disconnect by id: every socket of it, no other", async () => {
    const [one, two, other] = [
      await open({ params: { uid: "u1" } }), await open({ params: { uid: "u1" } }), await open({ params: { uid: "u2" } }),
    ];
    const [channel, , bystander] = [await join(one), await join(two), await join(other)];
    channel.push("disconnect_me", {});
    for (const socket of [one, two]) {
      await socket.closed.take("the close");
      await socket.opened.take("the reconnect");
    }
    assert.equal((await channel.joins.take("the rejoin")).status, "ok");
    await fence(bystander);
    assert.deepEqual(other.closed.rest, []);
  });

  test("authToken: the one that the server wants, as a string and as a function; another is refused", async () => {
    const params = { want: "a token of sorts" };
    for (const authToken of ["a token of sorts", () => "a token of sorts"]) {
      const socket = await open({ authToken, params }, { mount: "/tok" });
      assert.deepEqual(await outcome(socket.channel(fresh()).join()), ["ok", {}]);
    }
    await refused(client, { ...options(), authToken: "another", params }, "/tok");
    await refused(client, { ...options(), params }, "/tok");
  });

  test("refused at connect: an error, and no open", async () => {
    await refused(client, { ...options(), params: { reject: 1 } });
  });
}

for (const [version, client] of Object.entries(VERSIONS)) {
  describe(`phoenix ${version} over WebSocket`, () => {
    everywhere(client, () => ({ transport: WebSocket }));

    test("binary: pushes, replies, broadcasts and joins carry an ArrayBuffer", async () => {
      const socket = await connect(client);
      const channel = await join(socket, fresh(), bytes(1, 2));
      const pushed = listen(channel, "pushed_bin", "bcast_bin");
      const [status, response] = await outcome(channel.push("push_bin", bytes(0, 127, 255)));
      assert.equal(status, "ok");
      assert.ok(response instanceof ArrayBuffer);
      assert.deepEqual(new Uint8Array(response), new Uint8Array([0, 127, 255]));
      const [, payload] = await pushed.take();
      assert.ok(payload instanceof ArrayBuffer);
      assert.deepEqual(new Uint8Array(payload), new Uint8Array([0, 127, 255]));
      const other = await join(await connect(client), channel.topic);
      const heard = listen(other, "bcast_bin");
      channel.push("shout_bin", {});
      for (const inbox of [pushed, heard]) {
        const [, data] = await inbox.take();
        assert.deepEqual(new Uint8Array(data), new Uint8Array([1, 2, 3]));
      }
      const large = new Uint8Array(500_000).map((_, n) => n * 7);
      const [, echoed] = await outcome(channel.push("echo", large.buffer));
      assert.deepEqual(new Uint8Array(echoed), large);
    });

    test("disconnect by id closes with 1001, and the client comes back", async () => {
      const transport = recording();
      const socket = await connect(client, { transport, params: { uid: "gone" } });
      const channel = await join(socket);
      channel.push("disconnect_me", {});
      assert.equal(await socket.closed.take("the close"), 1001);
      await socket.opened.take("the reconnect");
      assert.equal((await channel.joins.take("the rejoin")).status, "ok");
    });

    test("heartbeats are answered, and keep a connection that would be idle", async () => {
      // Half of 1.5 s: the client gives up if the answer takes longer than that, the server if the next one comes later.
      const socket = await connect(client, { heartbeatIntervalMs: 750 }, { mount: "/quick" });
      const beats = new Inbox();
      socket.onMessage(({ topic, ref, payload }) => {
        if (topic === "phoenix") beats.put([ref, payload]);
      });
      for (let n = 0; n < 5; n++) assert.deepEqual((await beats.take("a heartbeat"))[1], { status: "ok", response: {} });
      assert.deepEqual(socket.closed.rest, []);
    });

    test("ping", async () => {
      const socket = await connect(client);
      const answered = new Inbox();
      assert.ok(socket.ping((milliseconds) => answered.put(milliseconds)));
      assert.ok((await answered.take("the ping's answer")) >= 0);
    });

    test("an idle connection is closed with 1002, and the client comes back", async () => {
      const socket = await connect(client, {}, { mount: "/quick" });
      const channel = await join(socket);
      assert.equal(await socket.closed.take("the close"), 1002);
      await socket.opened.take("the reconnect");
      assert.equal((await channel.joins.take("the rejoin")).status, "ok");
    });

    test("fallback: a WebSocket that never opens gives way to long-poll, which is remembered", async () => {
      class Never {
        readyState = 0;
        bufferedAmount = 0;
        send() {}
        close() {
          this.readyState = 3;
          setTimeout(() => this.onclose?.({ code: 1006 }), 0);
        }
      }
      const store = new Storage();
      const socket = await connect(client, { transport: Never, longPollFallbackMs: 100, sessionStorage: store });
      assert.equal(socket.transport, client.LongPoll);
      const channel = await join(socket);
      assert.deepEqual(await outcome(channel.push("echo", { n: 1 })), ["ok", { n: 1 }]);
      assert.deepEqual(store.items, { "phx:fallback:LongPoll": "true" });
      const next = await connect(client, { longPollFallbackMs: 60_000, sessionStorage: store });
      assert.equal(next.transport, client.LongPoll);
    });

    test("fallback: not taken where the WebSocket works", async () => {
      const store = new Storage();
      const socket = await connect(client, { longPollFallbackMs: 5_000, sessionStorage: store });
      const channel = await join(socket);
      assert.deepEqual(await outcome(channel.push("echo", { n: 1 })), ["ok", { n: 1 }]);
      assert.equal(socket.transport, WebSocket);
      assert.ok(socket.primaryPassedHealthCheck);
      assert.deepEqual(store.items, {});
    });
  });

  describe(`phoenix ${version} over long-poll`, () => {
    everywhere(client, () => ({ transport: client.LongPoll }));

    test("binary to the server", async () => {
      const channel = await join(await connect(client, { transport: client.LongPoll }));
      assert.deepEqual(await outcome(channel.push("list", bytes(0, 255))), ["ok", [1, 2, 3]]);
    });

    test("a short window: empty polls come and go, and messages still arrive", async () => {
      const channel = await join(await connect(client, { transport: client.LongPoll }, { mount: "/quick" }));
      const heard = listen(channel, "shout");
      const other = await join(await connect(client), channel.topic);
      for (let n = 0; n < 4; n++) {
        await new Promise((resolve) => setTimeout(resolve, 400));
        other.push("shout", { n });
        assert.deepEqual(await heard.take(), ["shout", { n }]);
      }
    });

    test("long-poll and WebSocket in one topic", async () => {
      const topic = fresh();
      const polled = await join(await connect(client, { transport: client.LongPoll }), topic);
      const wired = await join(await connect(client), topic);
      for (const [from, to] of [[polled, wired], [wired, polled]]) {
        const heard = listen(to, "shout");
        from.push("shout_from", { via: "x" });
        assert.deepEqual(await heard.take(), ["shout", { via: "x" }]);
      }
    });
  });
}

describe("old clients: vsn 1.0.0", () => {
  for (const query of ["vsn=1.0.0", ""]) {
    test(`${query || "without vsn"}: join, push, broadcast, crash, rejoin, leave`, async () => {
      const peer = await Peer.open(`${fixture.mount()}/websocket?${query}`);
      const topic = fresh();
      const say = (event, payload, ref) => peer.send({ topic, event, payload, ref });
      const replied = (ref, status, response) => ({ topic, event: "phx_reply", ref, payload: { status, response } });
      say("phx_join", {}, "1");
      await peer.expect(replied("1", "ok", {}));
      say("echo", { n: 1 }, "2");
      await peer.expect(replied("2", "ok", { n: 1 }));
      const modern = await join(await connect(phoenix1816), topic);
      modern.push("shout", { n: 2 });
      await peer.expect({ topic, event: "shout", payload: { n: 2 }, ref: null });
      say("crash", {}, "3");
      await peer.expect({ topic, event: "phx_error", payload: { reason: "channel_crash" }, ref: null });
      say("phx_join", {}, "4");
      await peer.expect(replied("4", "ok", {}));
      say("phx_leave", {}, "5");
      await peer.expect(replied("5", "ok", {}), { topic, event: "phx_close", payload: {}, ref: null });
      peer.close();
    });
  }
});

describe("a restart of the server", () => {
  test("1012 for everyone, no 1006, and every client of every version and transport comes back", async () => {
    const first = await Fixture.start();
    const transport = recording();
    const topic = fresh("room:pres");
    const clients = [];
    for (const [version, client] of Object.entries(VERSIONS)) {
      for (const [kind, over] of [["ws", transport], ["ws, no channel", transport], ["long-poll", client.LongPoll]]) {
        const socket = await connect(client, { transport: over }, { server: first });
        const key = `${version} ${kind}`;
        const member = { key, socket, kind };
        if (kind !== "ws, no channel") {
          member.channel = await join(socket, topic, { key });
          member.presence = new client.Presence(member.channel);
        }
        clients.push(member);
      }
    }
    const connections = [...transport.all];
    await first.stop();
    await within(Promise.all(connections.map(({ gone }) => gone)), "every connection to be closed");
    assert.deepEqual(transport.codes(), [1012, 1012, 1012, 1012]);
    const second = await Fixture.start(first.port);
    try {
      const members = clients.filter(({ channel }) => channel);
      for (const { key, socket } of clients) await socket.opened.take(`${key} to reconnect`);
      for (const { key, channel } of members) {
        assert.equal((await channel.joins.take(`${key} to rejoin`)).status, "ok");
      }
      const heard = members.map(({ channel }) => listen(channel, "shout"));
      members[0].channel.push("shout", { back: true });
      for (const inbox of heard) assert.deepEqual(await inbox.take(), ["shout", { back: true }]);
      const [, list] = await outcome(members[0].channel.push("plist", {}));
      assert.deepEqual(Object.keys(list).sort(), members.map(({ key }) => key).sort());
      assert.ok(!transport.codes().includes(1006), `${transport.codes()}`);
    } finally {
      sockets.forEach((socket) => socket.disconnect());
      await second.stop();
    }
  });
});
