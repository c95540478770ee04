/** The program as a process: what it prints, when it refuses to start, how it ends. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('./main.js', import.meta.url));
let dir: string;
before(() => {
  dir = mkdtempSync(join(tmpdir(), 'oarlock-main-'));
});
after(() => rmSync(dir, { recursive: true, force: true }));

class Program {
  out = '';
  err = '';
  readonly child: ChildProcess;
  readonly ended: Promise<number | null>;

  constructor(args: string[], env: NodeJS.ProcessEnv = {}) {
    this.child = spawn(process.execPath, [MAIN, ...args], {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.child.stdout?.on('data', (chunk) => {
      this.out += chunk;
    });
    this.child.stderr?.on('data', (chunk) => {
      this.err += chunk;
    });
    this.ended = new Promise((resolve) => this.child.on('close', resolve));
  }

  /** Port it listens on. */
  async ready(): Promise<number> {
    for (let n = 0; n < 1500; n++) {
      const found = /^Oarlock is listening on http:\/\/127\.0\.0\.1:(\d+)\n/.exec(this.out);
      if (found !== null) return Number(found[1]);
      if (this.child.exitCode !== null) break;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    assert.fail(`it did not start: ${this.out} ${this.err}`);
  }
}

test('promise 6: the program does not start beyond loopback without a token, nor with nonsense', async () => {
  const ws = join(dir, 'refused');
  const file = join(dir, 'file');
  writeFileSync(file, 'precious');
  const cases: [string[], RegExp][] = [
    [['--host', '0.0.0.0', '--wd', ws], /--host 0\.0\.0\.0 lets other machines in.*--token.*--insecure/s],
    [['--port', 'x', '--wd', ws], /--port must be/],
    [['--wd', file], /is a file/],
  ];
  await Promise.all(
    cases.map(async ([args, message]) => {
      const program = new Program(args);
      assert.equal(await program.ended, 2);
      assert.equal(program.out, '');
      assert.match(program.err, message);
      assert.ok(!/\bat .*\.js:\d+/.test(program.err), 'no stack');
    }),
  );
  assert.equal(readFileSync(file, 'utf8'), 'precious');
});

test('--help and --version', async () => {
  const help = new Program(['--help']);
  assert.equal(await help.ended, 0);
  assert.match(help.out, /--workspace_dir DIR/);
  const version = new Program(['--version']);
  assert.equal(await version.ended, 0);
  assert.match(version.out, /^\d+\.\d+\.\d+\n$/);
});

test('a used port is named with a remedy', async () => {
  const other = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => other.once('listening', resolve));
  const { port } = other.address() as { port: number };
  const program = new Program(['--port', String(port), '--wd', join(dir, 'used')]);
  assert.equal(await program.ended, 1);
  assert.match(program.err, new RegExp(`port ${port} is in use`));
  assert.equal(program.out, '');
  other.close();
});

test('it prints one line, answers, and ends in order on SIGTERM with streams and half requests open', async () => {
  const ws = join(dir, 'ws');
  const program = new Program(['--port', '0', '--wd', ws, '--token', 'a-token-of-the-tests']);
  const port = await program.ready();
  assert.equal(program.out, `Oarlock is listening on http://127.0.0.1:${port}\n`);
  const base = `http://127.0.0.1:${port}`;
  assert.equal((await fetch(`${base}/healthz`)).status, 200);
  assert.equal((await fetch(`${base}/project`)).status, 401);
  const headers = { authorization: 'Bearer a-token-of-the-tests' };
  assert.deepEqual(await (await fetch(`${base}/project`, { headers })).json(), { status: 1, projects: [] });
  // An API process stays small.
  const rss = Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${program.child.pid}/status`, 'utf8'))?.[1]) / 1024;
  assert.ok(rss < 150, `${rss} MB`);

  const stream = await fetch(`${base}/events`, { headers });
  const half = connect(port, '127.0.0.1');
  half.on('error', () => {});
  half.write(
    'POST /project HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer a-token-of-the-tests\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{',
  );
  await new Promise((resolve) => setTimeout(resolve, 100));
  const started = Date.now();
  program.child.kill('SIGTERM');
  program.child.kill('SIGTERM');
  assert.equal(await program.ended, 0, program.err);
  assert.ok(Date.now() - started < 10_000, `${Date.now() - started} ms`);
  await stream.text();
  half.destroy();

  const log = join(ws, '.oarlock/server.log');
  assert.ok(existsSync(log));
  assert.equal(statSync(log).mode & 0o077, 0, 'the log is for its owner');
  const text = readFileSync(log, 'utf8');
  assert.match(text, /"msg":"listening"/);
  assert.match(text, /"msg":"ended"/);
  // promise 31
  assert.ok(!text.includes('a-token-of-the-tests'));
});

test('Ctrl-C ends it too, and the options of paddlex_restful start it', async () => {
  const program = new Program(['--start_restful', '--pt', '0', '--wd', join(dir, '工作 区')]);
  await program.ready();
  program.child.kill('SIGINT');
  assert.equal(await program.ended, 0, program.err);
});
