/** What happens to hosts whose server dies, and who is never harmed by it. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { isAlive, processStat, signalGroup, signalProcess } from './identity.js';
import { TOKEN_VARIABLE } from './protocol.js';
import type { Fault } from './testing/fault-addon.js';
import { ends, runs, submit, testCompute, workspace } from './testing/harness.js';

const DOOMED = fileURLToPath(new URL('./testing/doomed-server.js', import.meta.url));
const stubborn: Fault = { do: 'deaf' };
const obedient: Fault = { do: 'work', steps: 100_000, stepMs: 20 };

async function doomedServer(
  t: TestContext,
  folder: string,
  launcher: 'ipc' | 'stdio',
  graceMs: number,
  ...faults: Fault[]
) {
  const args = [DOOMED, folder, launcher, String(graceMs), ...faults.map((fault) => JSON.stringify(fault))];
  const server = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => server.kill('SIGKILL'));
  const [line] = (await once(server.stdout, 'data')) as [Buffer];
  return { server, host: Number(line.toString()) };
}

async function kill9(server: ChildProcess): Promise<void> {
  server.kill('SIGKILL');
  await once(server, 'exit');
}

for (const launcher of ['ipc', 'stdio'] as const) {
  test(`promise 16: a host whose server is killed stops its job and ends (${launcher})`, async (t) => {
    const { server, host } = await doomedServer(t, workspace(), launcher, 20_000, obedient);
    assert.ok(runs(host));
    await kill9(server);
    assert.ok(await ends(host, 5_000), 'well before its time limit: the job stopped at its next step');
  });
}

test('promise 16: a job that does not stop cannot keep a host without server alive', async (t) => {
  const { server, host } = await doomedServer(t, workspace(), 'ipc', 700, obedient, stubborn);
  await kill9(server);
  assert.ok(await ends(host, 5_000));
});

test('promise 16: a restarted server ends what its predecessor left before it starts work', async (t) => {
  const folder = workspace();
  const { server, host } = await doomedServer(t, folder, 'ipc', 60_000, stubborn);
  const recorded = JSON.parse(readFileSync(join(folder, '.oarlock/hosts.json'), 'utf8')) as { pid: number }[];
  assert.deepEqual(
    recorded.map(({ pid }) => pid),
    [host],
  );
  await kill9(server);
  await sleep(200);
  assert.ok(runs(host), 'it has a minute to checkpoint');
  const compute = testCompute(t, { workspace: folder, orphanGraceMs: 100, termGraceMs: 400 });
  const job = submit(compute, { do: 'work', steps: 1, stepMs: 1 });
  await job.first('started');
  assert.ok(!runs(host), 'two trainings at once on one device');
  assert.equal((await job.handle.outcome).type, 'train');
  await compute.close(2_000);
  assert.equal(readFileSync(join(folder, '.oarlock/hosts.json'), 'utf8').trim(), '[]');
});

test('promise 17: a process that has the recorded pid by now survives', async (t) => {
  const folder = workspace();
  const token = 'f'.repeat(32);
  const dead = { pid: 2 ** 22 + 1, startTime: '1' };
  const innocent = spawn('sleep', ['60'], { detached: true, stdio: 'ignore' });
  const marked = spawn('sleep', ['60'], {
    detached: true,
    stdio: 'ignore',
    env: { ...process.env, [TOKEN_VARIABLE]: token },
  });
  const [a, b] = [innocent.pid ?? 0, marked.pid ?? 0];
  t.after(() => {
    innocent.kill('SIGKILL');
    marked.kill('SIGKILL');
  });
  const startTime = processStat(a)?.startTime ?? '';
  const entry = { lane: 'train', owner: dead };
  mkdirSync(join(folder, '.oarlock'));
  writeFileSync(
    join(folder, '.oarlock/hosts.json'),
    JSON.stringify([
      { ...entry, pid: a, startTime: '12345', token: 'a'.repeat(32) }, // after a reboot: same number, other start
      { ...entry, pid: a, startTime, token: 'b'.repeat(32) }, // even with the same start: it lacks the token
      { ...entry, pid: 1, startTime: processStat(1)?.startTime ?? '', token: 'c'.repeat(32) },
      { ...entry, pid: b, startTime: processStat(b)?.startTime ?? '', token }, // a real leftover
      { pid: 'x' },
    ]),
  );
  const compute = testCompute(t, { workspace: folder, orphanGraceMs: 50, termGraceMs: 500 });
  assert.equal((await submit(compute, { do: 'work', steps: 1, stepMs: 1 }).handle.outcome).type, 'train');
  assert.ok(runs(a), 'an innocent process was killed');
  assert.ok(!runs(b));
  // The same holds for every signal the supervisor sends.
  const stranger = { pid: a, startTime, token };
  assert.deepEqual(
    [isAlive(stranger), signalProcess(stranger, 'SIGKILL'), signalGroup(stranger, 'SIGKILL')],
    [false, false, false],
  );
  assert.ok(runs(a));
});

test('promise 17: hosts of another living server on the same folder are left alone', async (t) => {
  const folder = workspace();
  const { host } = await doomedServer(t, folder, 'ipc', 60_000, stubborn);
  const compute = testCompute(t, { workspace: folder, orphanGraceMs: 50, termGraceMs: 200 });
  await submit(compute, { do: 'work', steps: 1, stepMs: 1 }).handle.outcome;
  assert.ok(runs(host));
});

test('a damaged record of hosts does not keep the server from working', async (t) => {
  const folder = workspace();
  mkdirSync(join(folder, '.oarlock'));
  writeFileSync(join(folder, '.oarlock/hosts.json'), '[{"pid": 1, "sta');
  const compute = testCompute(t, { workspace: folder });
  assert.equal((await submit(compute, { do: 'work', steps: 1, stepMs: 1 }).handle.outcome).type, 'train');
  assert.ok(existsSync(join(folder, '.oarlock/hosts.json')));
});
