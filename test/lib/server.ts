/** Starts the built server as a child process and talks to it as a client script does: JSON bodies on every method. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

// biome-ignore lint/suspicious/noExplicitAny: answers are checked by the assertions of each test
export type Json = Record<string, any>;
export type Method = 'GET' | 'POST' | 'PUT' | 'DELETE' | 'HEAD' | 'OPTIONS';

export const root = fileURLToPath(new URL('../../..', import.meta.url));

export interface Reply {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  body: Buffer;
}

const agent = new Agent({ keepAlive: true });

/** One raw request. */
export function send(
  port: number,
  method: Method,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Reply> {
  const data = body === undefined ? undefined : Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body));
  return new Promise((resolve, reject) => {
    const call = request(
      {
        host: '127.0.0.1',
        port,
        method,
        path,
        agent,
        headers: {
          ...(data ? { 'content-type': 'application/json', 'content-length': String(data.length) } : {}),
          ...headers,
        },
      },
      (answer) => {
        const chunks: Buffer[] = [];
        answer.on('data', (chunk: Buffer) => chunks.push(chunk));
        answer.on('end', () =>
          resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: Buffer.concat(chunks) }),
        );
        answer.on('error', reject);
      },
    );
    call.on('error', reject);
    call.end(data);
  });
}

let nextPort = 20_000 + (process.pid % 10_000) * 2;

export class TestServer {
  #log = '';

  private constructor(
    readonly child: ChildProcess,
    readonly port: number,
    readonly workspace: string,
    readonly folder: string,
  ) {
    child.stderr?.on('data', (text) => {
      this.#log = (this.#log + text).slice(-20_000);
    });
  }

  /** A server on an own workspace; `folder` is a data root for files of the test. */
  static async start(
    options: { folder?: string; args?: string[]; env?: Record<string, string>; threads?: number } = {},
  ): Promise<TestServer> {
    const folder = options.folder ?? mkdtempSync(join(tmpdir(), 'oarlock-test-'));
    const workspace = join(folder, 'workspace');
    const port = nextPort++;
    const args = [
      join(root, 'dist/src/main.js'),
      '--port',
      `${port}`,
      '--workspace_dir',
      workspace,
      '--data_root',
      folder,
      // Test files run side by side: trainings that share cores wait for each other at every barrier.
      '--threads',
      `${options.threads ?? 1}`,
    ];
    const child = spawn(process.execPath, [...args, ...(options.args ?? [])], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...options.env },
    });
    const server = new TestServer(child, port, workspace, folder);
    await new Promise<void>((resolve, reject) => {
      let output = '';
      child.stdout?.on('data', (text) => {
        output += text;
        if (/Oarlock is listening on http:\/\//.test(output)) resolve();
      });
      child.once('exit', (code, signal) =>
        reject(new Error(`the server ended (${code ?? signal}):\n${output}\n${server.#log}`)),
      );
    });
    return server;
  }

  get log(): string {
    return this.#log;
  }

  /** The JSON answer, whatever its `status`. */
  async call(method: Method, path: string, body?: Json): Promise<Json> {
    const reply = await send(this.port, method, path, body);
    assert.equal(reply.status, 200, `${method} ${path}: HTTP ${reply.status} ${reply.body.toString().slice(0, 300)}`);
    assert.match(String(reply.headers['content-type']), /^application\/json/);
    return JSON.parse(reply.body.toString()) as Json;
  }

  /** The JSON answer of a call that must succeed. */
  async ok(method: Method, path: string, body?: Json): Promise<Json> {
    const answer = await this.call(method, path, body);
    assert.equal(answer.status, 1, `${method} ${path} ${JSON.stringify(body)}: ${JSON.stringify(answer)}`);
    return answer;
  }

  /** The JSON answer of a call that must fail with this code. */
  async fails(code: string, method: Method, path: string, body?: Json): Promise<Json> {
    const answer = await this.call(method, path, body);
    assert.equal(answer.status, -1, `${method} ${path} ${JSON.stringify(body)} should fail: ${JSON.stringify(answer)}`);
    assert.equal(answer.code, code, JSON.stringify(answer));
    assert.ok(typeof answer.message === 'string' && answer.message.length > 5, 'a failure carries a sentence');
    assert.doesNotMatch(answer.message, /\bat .*\(.*:\d+:\d+\)|node_modules|\.rs:\d+/, 'no stack in a message');
    return answer;
  }

  /** Polls until `done` is true; fails with the last answer after `seconds`. */
  async until(
    seconds: number,
    method: Method,
    path: string,
    body: Json,
    done: (answer: Json) => boolean,
    everyMs = 100,
  ): Promise<Json> {
    const end = Date.now() + seconds * 1000;
    for (;;) {
      const answer = await this.call(method, path, body);
      if (done(answer)) return answer;
      if (Date.now() > end) {
        assert.fail(
          `${method} ${path} ${JSON.stringify(body)} not done after ${seconds} s: ${JSON.stringify(answer)}\n${this.#log}`,
        );
      }
      await sleep(everyMs);
    }
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return this.child.exitCode;
    const ended = new Promise<void>((resolve) => this.child.once('exit', () => resolve()));
    this.child.kill(signal);
    await ended;
    return this.child.exitCode;
  }

  /** Stops the server and removes its folder. */
  async remove(): Promise<void> {
    await this.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Pids of compute hosts below a server, found by their command line. */
export function hosts(server: number): number[] {
  const found: number[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const parent = Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${name}/status`, 'utf8'))?.[1]);
      if (parent === server && readFileSync(`/proc/${name}/cmdline`, 'utf8').includes('host/main'))
        found.push(Number(name));
    } catch {
      // it ended while we looked
    }
  }
  return found;
}

/** Imports a folder of pictures, splits it and binds a project to it. */
export async function project(
  server: TestServer,
  path: string,
  split: { val_split: number; test_split: number; seed?: number } | null = { val_split: 0.2, test_split: 0.1 },
): Promise<{ did: string; pid: string }> {
  const { did } = await server.ok('POST', '/dataset', {
    name: 'pictures',
    desc: 'for a test',
    dataset_type: 'classification',
  });
  await server.ok('PUT', '/dataset', { did, path });
  const imported = await server.until(120, 'GET', '/dataset', { did }, (a) => [2, 4, 5, 6].includes(a.dataset_status));
  assert.ok([4, 6].includes(imported.dataset_status), JSON.stringify(imported));
  if (split) await server.ok('PUT', '/dataset/split', { did, ...split });
  const { pid } = await server.ok('POST', '/project', { name: 'a project', desc: '', project_type: 'classification' });
  await server.ok('PUT', '/workspace', { struct: 'project', id: pid, attr_dict: { did } });
  return { did, pid };
}
