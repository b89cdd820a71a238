// The official client, unchanged, in a real browser, against the fixture: what node's sockets cannot show.
// FIXTURE names the fixture's binary, CHROMIUM the browser.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, afterEach, before, describe, test } from "node:test";
import { chromium } from "playwright-core";
import { Fixture, PATIENCE_MS } from "../phoenix/fixture.mjs";

/** The client as pages load it: one script that sets `Phoenix`. */
const CLIENT = readFileSync(new URL("node_modules/phoenix/priv/static/phoenix.min.js", import.meta.url), "utf8");
const TRANSPORTS = ["WebSocket", "LongPoll"];

let browser;
let fixture;
let contexts = [];
let topics = 0;

before(async () => {
  fixture = await Fixture.start();
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox", "--disable-gpu"] });
});
after(async () => {
  await browser?.close();
  await fixture?.kill();
});
afterEach(async () => {
  for (const context of contexts) await context.close();
  contexts = [];
});

const fresh = (prefix = "room:b") => `${prefix}${++topics}`;

/** A page of the fixture's own origin, or of another, with the client and what is defined in `helpers`. */
async function visit(host = "localhost") {
  const context = await browser.newContext();
  context.setDefaultTimeout(PATIENCE_MS);
  contexts.push(context);
  const page = await context.newPage();
  await page.goto(`http://${host}:${fixture.port}/nf`);
  await page.addScriptTag({ content: CLIENT });
  await page.evaluate(helpers, fixture.port);
  return page;
}

/** Defined in the page: what its tests share. Nothing outlives the page. */
function helpers(port) {
  /** A socket by the name of its transport, with a list of what happened to it. */
  window.open = (transport, options = {}, mount = "/socket") => {
    const chosen = transport === "LongPoll" ? window.Phoenix.LongPoll : window.WebSocket;
    const socket = new window.Phoenix.Socket(`ws://localhost:${port}${mount}`, {
      transport: chosen,
      timeout: 60_000,
      rejoinAfterMs: () => 50,
      reconnectAfterMs: () => 100,
      ...options,
    });
    socket.happened = [];
    socket.onOpen(() => socket.happened.push("open"));
    socket.onClose((event) => socket.happened.push(event?.code));
    socket.onError(() => socket.happened.push("error"));
    socket.connect();
    return socket;
  };
  /** `[status, response]`; an ArrayBuffer as the list of its bytes. */
  window.outcome = (push) => new Promise((resolve) => {
    for (const status of ["ok", "error", "weird_status", "timeout"]) {
      push.receive(status, (response) => resolve([status, window.plain(response)]));
    }
  });
  window.plain = (value) => (value instanceof ArrayBuffer ? { bytes: [...new Uint8Array(value)] } : value);
  window.bytes = (...values) => new Uint8Array(values).buffer;
  /** The next payload of an event. */
  window.next = (channel, event) => new Promise((resolve) => {
    const ref = channel.on(event, (payload) => {
      channel.off(event, ref);
      resolve(window.plain(payload));
    });
  });
  /** The names that a Presence lists, once they are these. */
  window.present = (presence, ...names) => new Promise((resolve) => {
    const look = () => {
      const here = presence.list((key) => key).sort();
      if (JSON.stringify(here) === JSON.stringify(names)) resolve(here);
    };
    presence.onSync(look);
    look();
  });
}

/** Something is true in the page, now or later. */
const until = (page, condition, argument) => page.waitForFunction(condition, argument, { polling: 20 });

for (const transport of TRANSPORTS) {
  describe(`phoenix 1.8.16 in Chromium over ${transport}`, () => {
    test("join, push and reply, of every status", async () => {
      const page = await visit();
      const seen = await page.evaluate(async ([transport, topic]) => {
        const socket = open(transport);
        const channel = socket.channel(topic, { a: { b: [1] } });
        return [
          await outcome(channel.join()),
          await outcome(channel.push("echo", { é: ["\u2028", null] })),
          await outcome(channel.push("err", { why: "so" })),
          await outcome(channel.push("custom", {})),
          await outcome(channel.push("async", { later: true })),
          await outcome(socket.channel("room:deny1", {}).join()),
          await outcome(channel.leave()),
        ];
      }, [transport, "room:reply"]);
      assert.deepEqual(seen, [
        ["ok", { joined: true, p: { a: { b: [1] } } }],
        ["ok", { é: ["\u2028", null] }],
        ["error", { why: "so" }],
        ["weird_status", {}],
        ["ok", { later: true }],
        ["error", { reason: "unauthorized", got: {} }],
        ["ok", {}],
      ]);
    });

    test("a broadcast reaches another page; broadcast_from and push do what they say", async () => {
      const topic = fresh();
      const [ann, bob] = [await visit(), await visit()];
      for (const page of [ann, bob]) {
        const joined = await page.evaluate(async ([transport, topic]) => {
          window.channel = open(transport).channel(topic);
          window.heard = [];
          for (const event of ["shout", "pushed"]) channel.on(event, (payload) => heard.push([event, payload.n]));
          return outcome(channel.join());
        }, [transport, topic]);
        assert.deepEqual(joined, ["ok", {}]);
      }
      await ann.evaluate(async () => {
        await outcome(channel.push("shout_reply", { n: 1 }));
        channel.push("shout_from", { n: 2 });
        channel.push("push", { n: 3 });
      });
      await until(ann, () => heard.length === 2);
      await until(bob, () => heard.length === 2);
      for (const page of [ann, bob]) await page.evaluate(() => outcome(channel.push("echo", {})));
      assert.deepEqual(await ann.evaluate(() => heard), [["shout", 1], ["pushed", 3]]);
      assert.deepEqual(await bob.evaluate(() => heard), [["shout", 1], ["shout", 2]]);
    });

    test("presence: two pages agree while one comes, changes and goes", async () => {
      const topic = fresh("room:pres");
      const [ann, bob] = [await visit(), await visit()];
      const enter = (page, key) => page.evaluate(async ([transport, topic, key]) => {
        window.channel = open(transport).channel(topic, { key, meta: { name: key } });
        window.presence = new window.Phoenix.Presence(channel);
        await outcome(channel.join());
      }, [transport, topic, key]);
      await enter(ann, "ann");
      assert.deepEqual(await ann.evaluate(() => present(presence, "ann")), ["ann"]);
      await enter(bob, "bob");
      for (const page of [ann, bob]) await page.evaluate(() => present(presence, "ann", "bob"));
      await bob.evaluate(() => outcome(channel.push("update", { key: "bob", meta: { name: "robert" } })));
      await until(ann, () => presence.state.bob?.metas.map(({ name }) => name).join() === "robert");
      await bob.evaluate(() => outcome(channel.leave()));
      assert.deepEqual(await ann.evaluate(() => present(presence, "ann")), ["ann"]);
    });

    test("authToken: the one that the server wants; another is refused", async () => {
      const page = await visit();
      const connected = await page.evaluate(([transport, topic]) => {
        const options = { authToken: "a token of sorts", params: { want: "a token of sorts" } };
        return outcome(open(transport, options, "/tok").channel(topic).join());
      }, [transport, fresh()]);
      assert.deepEqual(connected, ["ok", {}]);
      const refused = await page.evaluate(async (transport) => {
        const options = { authToken: "another", params: { want: "a token of sorts" }, reconnectAfterMs: () => 60_000 };
        const socket = open(transport, options, "/tok");
        await new Promise((resolve) => socket.onError(resolve));
        return socket.happened.includes("open");
      }, transport);
      assert.equal(refused, false);
    });

    test("binary to the server", async () => {
      const page = await visit();
      const seen = await page.evaluate(async ([transport, topic]) => {
        const channel = open(transport).channel(topic);
        await outcome(channel.join());
        const pushed = next(channel, "bcast_bin");
        if (transport === "WebSocket") {
          const own = next(channel, "pushed_bin");
          const reply = await outcome(channel.push("push_bin", bytes(0, 127, 255)));
          channel.push("shout_bin", bytes());
          return [await own, reply, await pushed];
        }
        return [await outcome(channel.push("status_only", bytes(0, 127, 255)))];
      }, [transport, fresh()]);
      const sent = { bytes: [0, 127, 255] };
      const expected = transport === "WebSocket" ? [sent, ["ok", sent], { bytes: [1, 2, 3] }] : [["ok", {}]];
      assert.deepEqual(seen, expected);
    });

    test("a page of another host may not connect", async () => {
      const page = await visit("127.0.0.1");
      const happened = await page.evaluate(async (transport) => {
        const socket = open(transport, { reconnectAfterMs: () => 60_000 });
        await new Promise((resolve) => socket.onError(resolve));
        return socket.happened;
      }, transport);
      assert.ok(!happened.includes("open"), `${happened}`);
    });

    test("the server restarts: the page comes back, joins again and talks on", async () => {
      const page = await visit();
      await page.evaluate(async ([transport, topic]) => {
        window.socket = open(transport);
        window.channel = socket.channel(topic);
        window.joins = 0;
        channel.joinPush.receive("ok", () => joins++);
        await outcome(channel.join());
      }, [transport, fresh()]);
      await fixture.stop();
      await until(page, () => !socket.isConnected());
      fixture = await Fixture.start(fixture.port);
      await until(page, () => joins >= 2);
      assert.deepEqual(await page.evaluate(() => outcome(channel.push("echo", { back: true }))), ["ok", { back: true }]);
      const codes = await page.evaluate(() => socket.happened.filter(Number));
      if (transport === "WebSocket") assert.ok(codes.includes(1012) && !codes.includes(1000), `${codes}`);
    });
  });
}
