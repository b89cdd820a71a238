// The chat page in headless Chromium: several people, a restart of the server, a phone, the keyboard, both themes.
// WINGBEAT names the program, CHROMIUM the browser, SCREENSHOTS a directory for what the pages looked like.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { createInterface } from "node:readline";
import { after, afterEach, before, describe, test } from "node:test";
import { chromium } from "playwright-core";
import { PATIENCE_MS, freePort } from "../phoenix/fixture.mjs";

const SCREENSHOTS = process.env.SCREENSHOTS ?? "screenshots";
const DESK = { viewport: { width: 1280, height: 800 } };
const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
const SMALL_PHONE = { ...PHONE, viewport: { width: 320, height: 568 } };
const TAP_TARGET = 44;

let browser;
let server;
let port;
let visits = [];
let rooms = 0;

/** `wingbeat serve` on a port that stays the same over restarts. */
async function serve() {
  server = spawn(process.env.WINGBEAT, ["serve", "--bind", `127.0.0.1:${port}`], { stdio: ["ignore", "pipe", "inherit"] });
  const line = once(createInterface({ input: server.stdout }), "line");
  const gone = once(server, "exit").then(([code]) => assert.fail(`the server ended with ${code}`));
  gone.catch(() => {});
  await Promise.race([line, gone]);
}

async function stop() {
  server.kill("SIGTERM");
  const [code] = await once(server, "exit");
  assert.equal(code, 0, "the server's exit");
}

before(async () => {
  mkdirSync(SCREENSHOTS, { recursive: true });
  port = await freePort();
  await serve();
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox", "--disable-gpu"] });
});
after(async () => {
  await browser?.close();
  server?.kill("SIGKILL");
});
afterEach(async () => {
  for (const { context } of visits) await context.close();
  const troubles = visits.flatMap(({ troubles }) => troubles);
  visits = [];
  assert.deepEqual(troubles, [], "what the pages complained about, or asked others for");
});

const fresh = () => `room-${++rooms}`;

/** A page of somebody's own: another browser, as far as the page can tell. */
async function visit(room, options = DESK) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  const troubles = [];
  page.on("pageerror", (error) => troubles.push(`${error}`));
  page.on("console", (message) => {
    // That the server is away while it restarts is no fault of the page.
    if (message.type() === "error" && !/WebSocket connection to .* failed/.test(message.text())) troubles.push(message.text());
  });
  page.on("request", (request) => {
    const { protocol, host } = new URL(request.url());
    if (protocol !== "data:" && host !== `127.0.0.1:${port}`) troubles.push(`a request to ${request.url()}`);
  });
  visits.push({ context, troubles });
  await page.goto(`http://127.0.0.1:${port}/#${room}`);
  return page;
}

/** Enters the room under a name, and is connected. */
async function enter(room, name, options) {
  const page = await visit(room, options);
  await page.getByLabel("The name that others see").fill(name);
  await page.getByRole("button", { name: "Start chatting" }).click();
  await connected(page);
  return page;
}

const connected = (page) => page.locator('#connection[data-state="open"]').waitFor();
const offline = (page) => page.locator('#connection[data-state="waiting"]').waitFor();
const messages = (page) => page.locator("#log .message .text");
const shown = (page, text) => messages(page).filter({ hasText: text }).waitFor();

/**
 * The condition holds, now or later: asked again and again. Whatever a test claims about a page that something was just
 * done to goes through here, or comes after something that the page shows no earlier: a click ends before all that it
 * brings about.
 */
async function until(page, condition, argument) {
  await page.waitForFunction(condition, argument, { polling: 50, timeout: PATIENCE_MS });
}

/** These are the texts of all elements that fit, now or later. */
const texts = (page, selector, ...expected) => until(page, ([selector, expected]) => {
  const found = [...document.querySelectorAll(selector)].map((element) => element.textContent);
  return JSON.stringify(found) === JSON.stringify(expected);
}, [selector, expected]);

const present = (page, ...names) => until(page, (expected) => {
  const here = [...document.querySelectorAll("#people-list .name")].map((name) => name.textContent);
  return JSON.stringify(here.sort()) === JSON.stringify(expected);
}, names.sort());

async function say(page, text) {
  await page.getByLabel("Message", { exact: true }).fill(text);
  await page.getByRole("button", { name: "Send" }).click();
}

const screenshot = (page, name) => page.screenshot({ path: `${SCREENSHOTS}/${name}.png` });

describe("a conversation", () => {
  test("two pages see each other, their typing, and what they say, markup as text", async () => {
    const room = fresh();
    const ann = await enter(room, "Ann Other");
    await ann.locator("#empty", { hasText: "Nothing was said" }).waitFor();
    await ann.locator("#alone").waitFor();
    const bob = await enter(room, "Bob");
    for (const page of [ann, bob]) await present(page, "Ann Other", "Bob");
    await ann.locator("#alone").waitFor({ state: "hidden" });
    await ann.locator(".notice", { hasText: "Bob came in" }).waitFor();

    // Looked for from before it is there: it goes by itself.
    const typing = bob.locator("#typing", { hasText: "Ann Other is typing…" }).waitFor();
    await Promise.all([typing, ann.getByLabel("Message", { exact: true }).pressSequentially("Hel")]);
    const markup = `<img src=x onerror="document.title='broken'"> & "quotes" <b>bold</b>`;
    await say(ann, markup);
    await shown(bob, markup);
    await until(bob, () => document.querySelector("#typing").textContent === "");
    assert.equal(await bob.locator("#log img, #log b:not(.by b)").count(), 0);
    await say(bob, "How good to see you.\nIn two lines.");
    await shown(ann, "In two lines.");
    const theirs = ann.locator(".message:not(.own)").first();
    assert.equal(await theirs.locator(".by b").textContent(), "Bob"); // a message appears as a whole
    assert.match(await theirs.locator("time").getAttribute("datetime"), /^\d{4}-\d\d-\d\dT/);
    assert.equal(await ann.locator(".message.own .text").textContent(), markup);
    await screenshot(ann, "desk-light");
  });

  test("a private message reaches its person, and nobody else", async () => {
    const room = fresh();
    const [ann, bob, eve] = [await enter(room, "Ann"), await enter(room, "Bob"), await enter(room, "Eve")];
    for (const page of [ann, bob, eve]) await present(page, "Ann", "Bob", "Eve");
    await ann.getByRole("button", { name: "Bob write in private" }).click();
    await ann.locator("#to", { hasText: "Only Bob will see this" }).waitFor();
    await say(ann, "between us");
    await shown(ann, "between us");
    await shown(bob, "between us");
    assert.match(await bob.locator(".private .by").textContent(), /Ann.*to you, in private/);
    assert.match(await ann.locator(".private .by").textContent(), /You.*in private to Bob/);
    await screenshot(ann, "private");
    await ann.getByRole("button", { name: "Write to everybody again" }).click();
    await say(ann, "to all of you");
    await shown(eve, "to all of you");
    assert.deepEqual(await messages(eve).allTextContents(), ["to all of you"]);
  });

  test("a private message to somebody who has gone comes back into the field", async () => {
    const room = fresh();
    const [ann, bob] = [await enter(room, "Ann"), await enter(room, "Bob")];
    await ann.getByRole("button", { name: "Bob write in private" }).click();
    await ann.locator("#to", { hasText: "Only Bob will see this" }).waitFor();
    await bob.close();
    await present(ann, "Ann");
    await say(ann, "too late");
    await ann.locator("#problem", { hasText: "not here any more" }).waitFor();
    await until(ann, () => document.querySelector("#text").value === "too late");
  });

  test("who closes the page is gone", async () => {
    const room = fresh();
    const [ann, bob] = [await enter(room, "Ann"), await enter(room, "Bob")];
    await present(ann, "Ann", "Bob");
    await bob.close();
    await present(ann, "Ann");
    await ann.locator(".notice", { hasText: "Bob left" }).waitFor();
  });

  test("another name is seen by all", async () => {
    const room = fresh();
    const [ann, bob] = [await enter(room, "Ann"), await enter(room, "Bob")];
    await bob.locator("#me").click();
    await bob.getByLabel("The name that others see").fill("Robert");
    await bob.getByLabel("The name that others see").press("Enter");
    await present(ann, "Ann", "Robert");
    await say(bob, "it is me");
    await shown(ann, "it is me");
    assert.equal(await ann.locator(".message .by b").textContent(), "Robert");
  });
});

describe("rooms and history", () => {
  test("several rooms at once: unread ones are marked, what was said stays", async () => {
    const [first, second] = [fresh(), fresh()];
    const [ann, bob] = [await enter(first, "Ann"), await enter(first, "Bob")];
    await say(bob, "in the first");
    await shown(ann, "in the first");
    await ann.getByLabel("Join or create a room").fill(` ${second.toUpperCase()} `);
    await ann.getByLabel("Join or create a room").press("Enter");
    await ann.locator("h1", { hasText: second }).waitFor();
    await connected(ann);
    await present(ann, "Ann");
    assert.deepEqual(await messages(ann).allTextContents(), []);
    await say(bob, "still in the first");
    await ann.locator("#room-list .badge:not([hidden])", { hasText: "1" }).waitFor();
    await until(ann, () => document.title.startsWith("(1)"));
    await ann.getByRole("link", { name: first }).click();
    await ann.locator("h1", { hasText: first }).waitFor(); // the page learns of its new address a moment after the click
    await texts(ann, "#log .message .text", "in the first", "still in the first");
    await texts(ann, "#room-list .badge:not([hidden])");
    await ann.getByRole("button", { name: `Leave ${second}` }).click();
    await texts(ann, "#room-list li .name", first);
  });

  test("a reload keeps the name, the rooms, the person and what was said", async () => {
    const room = fresh();
    const [ann, bob] = [await enter(room, "Ann"), await enter(room, "Bob")];
    await say(ann, "before");
    for (const page of [ann, bob]) await shown(page, "before"); // what Ann's page has not got yet, it cannot keep
    await ann.reload();
    await connected(ann);
    await present(ann, "Ann", "Bob");
    await texts(ann, ".message.own .text", "before");
    await say(ann, "after");
    await shown(bob, "after");
    assert.deepEqual(await bob.locator(".message .by b").allTextContents(), ["Ann", "Ann"]);
  });

  test("who reads further up is not moved, and told of what is new", async () => {
    const room = fresh();
    const [ann, bob] = [await enter(room, "Ann"), await enter(room, "Bob")];
    for (let n = 0; n < 30; n++) await say(bob, `line ${n}\nand a second one`);
    await shown(ann, "line 29");
    const isScrolled = () => document.querySelector("#scroll").scrollTop > 0;
    await until(ann, isScrolled); // it follows what is said
    await ann.locator("#scroll").evaluate((scroll) => { scroll.scrollTop = 0; });
    await until(ann, () => document.querySelector("#scroll").scrollTop === 0);
    await say(bob, "the newest");
    await ann.getByRole("button", { name: "New messages" }).click();
    await ann.locator("#newest").waitFor({ state: "hidden" });
    await until(ann, isScrolled);
  });
});

describe("the connection", () => {
  test("the server restarts: both pages say so, come back by themselves, and chat on", async () => {
    const room = fresh();
    const [ann, bob] = [await enter(room, "Ann"), await enter(room, "Bob")];
    for (const page of [ann, bob]) await present(page, "Ann", "Bob");
    await say(ann, "before");
    for (const page of [ann, bob]) await shown(page, "before");
    await stop();
    for (const page of [ann, bob]) await offline(page);
    await ann.locator("#banner", { hasText: "The connection is lost" }).waitFor();
    await until(ann, () => document.querySelector("#send").disabled);
    await ann.getByLabel("Message", { exact: true }).fill("written meanwhile");
    await screenshot(ann, "offline");
    await serve();
    for (const page of [ann, bob]) {
      await connected(page);
      await present(page, "Ann", "Bob");
      await page.locator("#banner").waitFor({ state: "hidden" });
    }
    await ann.getByRole("button", { name: "Send" }).click();
    await shown(bob, "written meanwhile");
    await say(bob, "after");
    await shown(ann, "after");
    assert.deepEqual(await messages(ann).allTextContents(), ["before", "written meanwhile", "after"]);
    assert.equal(await ann.locator(".notice", { hasText: "left" }).count(), 0);
  });
});

/** What is visible and reaches beyond the window, or is too small for a finger, once nothing moves any more. */
function layoutFaults(page) {
  return page.evaluate(async (tapTarget) => {
    const ending = document.getAnimations().filter((each) => each.effect.getComputedTiming().endTime !== Infinity);
    await Promise.allSettled(ending.map((each) => each.finished));
    const faults = [];
    const width = document.documentElement.clientWidth;
    if (document.scrollingElement.scrollWidth > width) faults.push(`the page is ${document.scrollingElement.scrollWidth} wide`);
    for (const element of document.querySelectorAll("body *")) {
      const box = element.getBoundingClientRect();
      const isShown = element.checkVisibility({ visibilityProperty: true }) && box.width > 1 && box.bottom > 0;
      if (!isShown || element.closest(".visually-hidden")) continue;
      const name = `${element.tagName} ${element.id || element.className}`;
      if (box.left < -0.5 || box.right > width + 0.5) faults.push(`${name} reaches from ${box.left} to ${box.right}`);
      const isTarget = element.matches("button, a, input, textarea");
      if (isTarget && (box.height < tapTarget || box.width < tapTarget)) faults.push(`${name} is ${box.width} by ${box.height}`);
    }
    return faults;
  }, TAP_TARGET);
}

/** Whether an element has come in from the side. */
function isInside(selector) {
  const { left, right } = document.querySelector(selector).getBoundingClientRect();
  return left >= -0.5 && right <= innerWidth + 0.5;
}

describe("on a phone", () => {
  for (const [name, device] of [["phone", PHONE], ["small-phone", SMALL_PHONE]]) {
    test(`${name}: nothing overflows, everything can be tapped, both drawers work`, async () => {
      const room = fresh();
      const page = await visit(room, device);
      await page.getByLabel("The name that others see").fill("Ann");
      assert.deepEqual(await layoutFaults(page), [], "the first dialog");
      await screenshot(page, `${name}-hello`);
      await page.getByRole("button", { name: "Start chatting" }).tap();
      await connected(page);
      const bob = await enter(room, "Bartholomew-Maximilian the Long");
      await say(bob, "A sentence of a usual length, which wraps on a phone.");
      await say(bob, "x".repeat(300));
      await say(page, "And an answer.");
      await shown(page, "And an answer.");
      await shown(page, "xxx");
      assert.deepEqual(await layoutFaults(page), [], "the conversation");
      const field = await page.getByLabel("Message", { exact: true }).boundingBox();
      assert.ok(field.y > 0 && field.y + field.height <= device.viewport.height, "the field is within the window");
      assert.ok(field.width > device.viewport.width / 2, "the field has room");
      await screenshot(page, name);

      await page.locator("#show-people").tap();
      await page.getByRole("button", { name: /Bartholomew.*write in private/ }).waitFor();
      await until(page, isInside, "#people");
      await screenshot(page, `${name}-people`);
      await page.getByRole("button", { name: /Bartholomew.*write in private/ }).tap();
      await page.locator("#to").waitFor();
      await page.locator("#people").waitFor({ state: "hidden" });
      assert.deepEqual(await layoutFaults(page), [], "writing in private");
      await page.getByRole("button", { name: "Write to everybody again" }).tap();
      await page.locator("#to").waitFor({ state: "hidden" });

      await page.locator("#show-rooms").tap();
      await until(page, isInside, "#rooms");
      await page.getByLabel("Join or create a room").fill("another");
      await screenshot(page, `${name}-rooms`);
      await page.getByLabel("Join or create a room").press("Enter");
      await page.locator("h1", { hasText: "another" }).waitFor();
      await page.locator("#rooms").waitFor({ state: "hidden" });
    });
  }
});

describe("by keyboard, and for those who do not see it", () => {
  test("Enter sends, Shift+Enter breaks the line, Escape returns to the room", async () => {
    const room = fresh();
    const page = await visit(room);
    await page.keyboard.type("Ann");
    await page.keyboard.press("Enter");
    await connected(page);
    const bob = await enter(room, "Bob");
    await present(page, "Ann", "Bob");
    await page.locator(".skip").focus();
    await page.keyboard.press("Enter");
    await until(page, () => document.activeElement.id === "text");
    await page.keyboard.type("one");
    await page.keyboard.press("Shift+Enter");
    await page.keyboard.type("two");
    await page.keyboard.press("Enter");
    await shown(bob, "two");
    assert.equal(await messages(bob).textContent(), "one\ntwo");
    await page.getByRole("button", { name: "Bob write in private" }).focus();
    await page.keyboard.press("Enter");
    await page.locator("#to", { hasText: "Only Bob will see this" }).waitFor();
    await until(page, () => document.activeElement.id === "text");
    await page.keyboard.press("Escape");
    await page.locator("#to").waitFor({ state: "hidden" });
  });

  test("everything that can be used has a name, and roles say what is what", async () => {
    const page = await enter(fresh(), "Ann");
    await present(page, "Ann");
    const nameless = await page.evaluate(() => [...document.querySelectorAll("button, a, input, textarea")]
      .filter((element) => element.checkVisibility())
      .filter((element) => !(element.ariaLabel || element.labels?.length || element.textContent.trim()))
      .map((element) => element.outerHTML));
    assert.deepEqual(nameless, []);
    await page.getByRole("log", { name: "Messages" }).waitFor({ state: "attached" });
    await page.getByRole("status").waitFor();
    await page.getByRole("complementary", { name: "Who is here" }).waitFor();
  });

  test("what has the focus keeps it while people come and talk", async () => {
    const room = fresh();
    const page = await enter(room, "Ann");
    const bob = await enter(room, "Bob");
    await page.getByRole("button", { name: "Bob write in private" }).focus();
    const eve = await enter(room, "Eve");
    await present(page, "Ann", "Bob", "Eve");
    await until(page, () => document.activeElement.textContent.includes("Bob"));
    await page.getByRole("link", { name: room }).focus();
    await say(eve, "do not mind me");
    await shown(page, "do not mind me");
    await until(page, () => document.activeElement.matches("#room-list a"));
    await bob.close();
  });

  test("no name, no way in", async () => {
    const page = await visit(fresh());
    await page.keyboard.press("Escape");
    const name = page.getByLabel("The name that others see");
    await name.fill("   ");
    await page.getByRole("button", { name: "Start chatting" }).click();
    await page.locator("#hello").waitFor();
    assert.equal(await page.locator("h1").textContent(), "", "no room is open");
    await name.fill("Ann");
    await name.press("Enter");
    await connected(page);
  });
});

describe("light and dark", () => {
  /** The page's ground is as bright as that, from 0 to 255, now or later. */
  const ground = (page, least, most) => until(page, ([least, most]) => {
    const canvas = document.createElement("canvas").getContext("2d");
    canvas.fillStyle = getComputedStyle(document.body).backgroundColor;
    canvas.fillRect(0, 0, 1, 1);
    const [red] = canvas.getImageData(0, 0, 1, 1).data;
    return least <= red && red <= most;
  }, [least, most]);
  const dark = (page) => ground(page, 0, 63);
  const light = (page) => ground(page, 193, 255);

  test("as the system, until somebody chooses; the choice is kept", async () => {
    const page = await enter(fresh(), "Ann", { ...DESK, colorScheme: "dark" });
    await say(page, "in the dark");
    await shown(page, "in the dark");
    await dark(page);
    await screenshot(page, "desk-dark");
    await page.emulateMedia({ colorScheme: "light" });
    await light(page);
    await page.locator("#theme").click();
    await page.locator("#theme").click();
    await dark(page);
    await page.reload();
    await connected(page);
    await dark(page);
  });
});
