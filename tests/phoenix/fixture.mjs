// The fixture as a process, and waiting without sleeping. Needs nothing but node.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import net from "node:net";
import { createInterface } from "node:readline";

/** How long anything may take. A guard against hanging, not a judgement of speed. */
export const PATIENCE_MS = 60_000;

/** The promise, or a failure that says what did not happen. */
export function within(promise, what, ms = PATIENCE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${ms} ms: ${what}`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Things that arrive, in order, and whoever waits for the next one. */
export class Inbox {
  #items = [];
  #waiting = [];

  put(item) {
    const waiter = this.#waiting.shift();
    if (waiter) waiter(item);
    else this.#items.push(item);
  }

  /** The next thing, now or later. */
  take(what = "something to arrive") {
    if (this.#items.length > 0) return Promise.resolve(this.#items.shift());
    return within(new Promise((resolve) => this.#waiting.push(resolve)), what);
  }

  /** The next thing that fits; those before it are dropped. */
  async find(fits, what) {
    for (;;) {
      const item = await this.take(what);
      if (fits(item)) return item;
    }
  }

  /** What is here and was not taken. */
  get rest() {
    return [...this.#items];
  }
}

/** Linux gives outgoing connections the ports above these; browsers refuse one of those below (10080). */
const [LEAST_PORT, MOST_PORT] = [11_000, 32_767];

/**
 * A port that nobody uses, and that a server finds free again after a restart: one of those that no outgoing connection
 * of another program is given meanwhile.
 */
export async function freePort() {
  for (;;) {
    const port = LEAST_PORT + Math.floor(Math.random() * (MOST_PORT - LEAST_PORT));
    const server = net.createServer();
    const isFree = await new Promise((resolve) => {
      server.once("error", () => resolve(false));
      server.listen(port, "127.0.0.1", () => resolve(true));
    });
    if (!isFree) continue;
    server.close();
    await once(server, "close");
    return port;
  }
}

/** The reference application in a process of its own: the binary that the variable FIXTURE names. */
export class Fixture {
  static async start(port) {
    const binary = process.env.FIXTURE;
    assert.ok(binary, "FIXTURE must name the fixture's binary: cargo build --example fixture");
    const fixture = new Fixture();
    fixture.port = port ?? (await freePort());
    // Its panics are asked for by the tests; they are shown only when somebody looks.
    const stderr = process.env.FIXTURE_LOG ? "inherit" : "ignore";
    fixture.process = spawn(binary, ["--port", `${fixture.port}`], { stdio: ["ignore", "pipe", stderr] });
    fixture.exited = once(fixture.process, "exit");
    const line = once(createInterface({ input: fixture.process.stdout }), "line");
    const gone = fixture.exited.then(([code, signal]) => assert.fail(`the fixture ended: ${code ?? signal}`));
    gone.catch(() => {});
    const [said] = await within(Promise.race([line, gone]), "the fixture to listen");
    assert.equal(said, `listening on 127.0.0.1:${fixture.port}`);
    return fixture;
  }

  /** The URL of a mount for the official client: it adds `/websocket` or `/longpoll`. */
  mount(path = "/socket") {
    return `ws://127.0.0.1:${this.port}${path}`;
  }

  /** SIGTERM: it drains, and ends with status 0. */
  async stop() {
    this.process.kill("SIGTERM");
    const [code, signal] = await within(this.exited, "the fixture to drain and end");
    assert.deepEqual({ code, signal }, { code: 0, signal: null }, "the fixture's exit");
  }

  /** For the end of a file: whatever state it is in. */
  async kill() {
    this.process.kill("SIGKILL");
    await this.exited;
  }
}
