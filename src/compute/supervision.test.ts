/** Compute hosts as real processes: jobs, crashes, hangs, stops. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { getPriority } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { commandLauncher, launcherOf } from './launcher.js';
import type { Compute } from './ports.js';
import { ends, failure, hostPid, openDescriptors, runs, submit, testCompute, workspace } from './testing/harness.js';

test('a job runs in a host of its own that gives way to the server', async (t) => {
  const compute = testCompute(t, { yieldToServer: true });
  const job = submit(compute, { do: 'work', steps: 5, stepMs: 20 });
  assert.equal(compute.find(job.id), job.handle);
  assert.throws(() => submit(compute, { do: 'work', steps: 1, stepMs: 1 }, { id: job.id }), /already/);
  await job.first('started');
  const pid = hostPid(compute, job.id);
  assert.equal(getPriority(pid), 10);
  assert.equal(readFileSync(`/proc/${pid}/oom_score_adj`, 'utf8').trim(), '800');
  const environ = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');
  assert.ok(environ.some((entry) => /^OMP_NUM_THREADS=[1-9]/.test(entry)));
  assert.ok(environ.includes('CUDA_VISIBLE_DEVICES='), 'a CPU job must not see GPUs');
  const outcome = await job.handle.outcome;
  assert.deepEqual(outcome, { type: 'train', stopped: false, completed_epochs: 1, best_epoch: null, best_metrics: {} });
  assert.deepEqual(
    job.states.map(({ state }) => state),
    ['starting', 'running'],
  );
  assert.equal(compute.find(job.id), undefined);
  assert.deepEqual(job.events.at(-1)?.event, { ...job.events.at(-1)?.event, type: 'step', step: 5 });

  // The host stays warm for the next job, and ends when it has had nothing to do.
  const next = submit(compute, { do: 'work', steps: 1, stepMs: 1 });
  await next.handle.outcome;
  assert.deepEqual(compute.stats().hosts, [{ pid, lane: 'train', jobs: [] }]);
});

test('an idle host is ended after a while', async (t) => {
  const compute = testCompute(t, { trainIdleMs: 200 });
  await submit(compute, { do: 'work', steps: 1, stepMs: 1 }).handle.outcome;
  const pid = compute.stats().hosts[0]?.pid ?? 0;
  assert.ok(runs(pid));
  assert.ok(await ends(pid, 5_000));
  await sleep(300);
  assert.deepEqual(compute.stats(), { queued: 0, running: 0, hosts: [], restarts: 0 });
});

test('promise 16: kill -9 of a host fails its job with the reason, and the next job works', async (t) => {
  const compute = testCompute(t);
  const job = submit(compute, { do: 'work', steps: 1_000, stepMs: 20 });
  const waiting = submit(compute, { do: 'work', steps: 1, stepMs: 1 });
  await job.first('step');
  process.kill(hostPid(compute, job.id), 'SIGKILL');
  const failed = await failure(job.handle);
  assert.match(failed.message, /SIGKILL \(killed from outside\)/);
  assert.deepEqual([failed.code, failed.retryable, failed.context.reason], ['internal', true, 'signal']);
  assert.equal((await waiting.handle.outcome).type, 'train');
  assert.equal(compute.stats().restarts, 1);
});

test('a crash inside native code is told by its signal, with the last lines printed', async (t) => {
  const folder = workspace();
  const compute = testCompute(t);
  const errLog = join(folder, 'err.log');
  writeFileSync(errLog, 'before\n');
  const crashed = await failure(submit(compute, { do: 'signal', signal: 'SIGSEGV' }).handle);
  assert.equal(crashed.context.signal, 'SIGSEGV');
  assert.match(crashed.message, /invalid memory access/);
  const lines = Array.from({ length: 80 }, (_, n) => `line ${n}`);
  const printed = await failure(submit(compute, { do: 'print', lines }, { errLog }).handle);
  assert.equal((printed.context.stderr as string[]).at(-1), 'line 79');
  await sleep(100);
  const log = readFileSync(errLog, 'utf8');
  assert.ok(log.startsWith('before\nline 0\n') && log.includes('line 79\n'), log.slice(0, 200));
  assert.match(log, /SIGABRT/);
  const exited = await failure(submit(compute, { do: 'exit', code: 3 }).handle);
  assert.deepEqual([exited.context.reason, exited.context.exit_code], ['exit', 3]);
});

test('promise 28: a panic in native code fails the job, not the host', async (t) => {
  const compute = testCompute(t);
  const failed = await failure(submit(compute, { do: 'panic' }).handle);
  assert.match(failed.message, /failed unexpectedly: index out of bounds/);
  const { hosts } = compute.stats();
  assert.equal((await submit(compute, { do: 'work', steps: 1, stepMs: 1 }).handle.outcome).type, 'train');
  assert.deepEqual(compute.stats().hosts, hosts);
});

test('promise 18: a failed device ends its host, and the next job gets a fresh one', async (t) => {
  const compute = testCompute(t);
  const failed = await failure(submit(compute, { do: 'device-fault' }).handle);
  assert.equal(failed.code, 'device_fault');
  const next = submit(compute, { do: 'work', steps: 1, stepMs: 1 });
  assert.equal((await next.handle.outcome).type, 'train');
  assert.equal(compute.stats().restarts, 1);
});

test('promise 20: a stopped process is stalled, then failed, within the time', async (t) => {
  const folder = workspace();
  const errLog = join(folder, 'err.log');
  const compute = testCompute(t, { stallMs: 1_000, termGraceMs: 1_000, stackDumpMs: 2_000 });
  const job = submit(compute, { do: 'work', steps: 10_000, stepMs: 20 }, { errLog });
  await job.first('step');
  const pid = hostPid(compute, job.id);
  const start = Date.now();
  process.kill(pid, 'SIGSTOP');
  const failed = await failure(job.handle);
  const seconds = (Date.now() - start) / 1000;
  assert.ok(seconds < 8, `took ${seconds} s`);
  assert.equal(failed.context.reason, 'stalled');
  assert.deepEqual(
    job.states.map(({ state }) => state),
    ['starting', 'running', 'stalled'],
  );
  assert.ok(await ends(pid, 3_000));
  assert.match(readFileSync(errLog, 'utf8'), /thread \d+ .*: T \(stopped\)/);
});

test('promise 20: a job that spins without a sign of life is ended; one that is only slow gets more time', async (t) => {
  const compute = testCompute(t, { stallMs: 600, busyFactor: 4, termGraceMs: 500 });
  const slow = submit(compute, { do: 'silence', ms: 1_200, busy: true });
  assert.equal((await slow.handle.outcome).type, 'train');
  const spinning = submit(compute, { do: 'silence', ms: 60_000, busy: true });
  const sleeping = await failure(spinning.handle);
  assert.equal(sleeping.context.reason, 'stalled');
  assert.ok((sleeping.context.silent_seconds as number) >= 1);
});

test('a job stops at its next step when asked', async (t) => {
  const compute = testCompute(t);
  const job = submit(compute, { do: 'work', steps: 10_000, stepMs: 20 });
  await job.first('step');
  const start = Date.now();
  await job.handle.stop();
  assert.ok(Date.now() - start < 1_000);
  const outcome = await job.handle.outcome;
  assert.ok(outcome.type === 'train' && outcome.stopped);
  assert.equal(job.states.at(-1)?.state, 'stopping');

  const starting = submit(compute, { do: 'work', steps: 10_000, stepMs: 20 });
  await starting.reach('running');
  await starting.handle.stop(); // perhaps before native code knows it
  assert.notEqual((await starting.handle.outcome).type, 'evaluate');
});

test('promise 20: a job that ignores a stop is ended with its group by force', async (t) => {
  const compute = testCompute(t, { stopGraceMs: 300, termGraceMs: 300 });
  const job = submit(compute, { do: 'deaf' });
  await job.first('heartbeat');
  const pid = hostPid(compute, job.id);
  const start = Date.now();
  await job.handle.stop();
  assert.ok(Date.now() - start < 3_000);
  const failed = await failure(job.handle);
  assert.deepEqual([failed.code, failed.context.reason], ['cancelled', 'killed']);
  assert.ok(!runs(pid));
});

test('trainings of one device queue in order and say so', async (t) => {
  const compute = testCompute(t);
  const jobs = [1, 2, 3].map(() => submit(compute, { do: 'work', steps: 8, stepMs: 25 }));
  await jobs[2]?.reach('queued');
  assert.match(jobs[2]?.states[0]?.message ?? '', /^Waiting for cpu, 1 ahead in line; running now: job-\d+\.$/);
  const dropped = submit(compute, { do: 'work', steps: 1, stepMs: 1 });
  await dropped.reach('queued');
  assert.equal(dropped.states.at(-1)?.position, 3);
  await dropped.handle.stop();
  assert.equal((await failure(dropped.handle)).code, 'cancelled');
  const ends: number[] = [];
  await Promise.all(jobs.map((job) => job.handle.outcome.then(() => ends.push(jobs.indexOf(job)))));
  assert.deepEqual(ends, [0, 1, 2]);
  assert.deepEqual(
    jobs.map((job) => job.states.filter(({ state }) => state === 'queued').map(({ position }) => position)),
    [[], [1], [2, 1]],
  );
});

test('promise 26: a full lane refuses at once instead of piling up', async (t) => {
  const compute = testCompute(t, { interactiveConcurrency: 2, interactiveQueue: 3 });
  const request = { lane: 'interactive' } as const;
  const jobs = Array.from({ length: 8 }, () => submit(compute, { do: 'work', steps: 5, stepMs: 20 }, request));
  const outcomes = await Promise.all(jobs.map((job) => job.handle.outcome));
  const refused = outcomes.filter((outcome) => outcome.type === 'failed');
  assert.equal(refused.length, 3);
  for (const outcome of refused) {
    assert.ok(outcome.code === 'resource_exhausted' && outcome.retryable && outcome.context.reason === 'queue_full');
  }
  assert.equal(compute.stats().hosts.length, 1, 'interactive jobs share one host');
});

test('interactive jobs do not wait for a training', async (t) => {
  const compute = testCompute(t);
  const training = submit(compute, { do: 'work', steps: 10_000, stepMs: 10 });
  await training.first('step');
  const quick = submit(compute, { do: 'env', name: 'CUDA_VISIBLE_DEVICES' }, { lane: 'interactive' });
  const outcome = await quick.handle.outcome;
  assert.ok(outcome.type === 'evaluate' && outcome.report.value === (process.env.CUDA_VISIBLE_DEVICES ?? null));
  assert.equal(training.handle.state, 'running');
});

test('promise 26: ten thousand steps a second do not flood the server, and no evaluation is lost', async (t) => {
  const compute = testCompute(t);
  const flood = submit(compute, { do: 'flood', steps: 20_000 });
  await flood.handle.outcome;
  const evals = flood.events.filter(({ event }) => event.type === 'eval');
  assert.deepEqual(
    evals.map(({ event }) => (event.type === 'eval' ? event.epoch : 0)),
    Array.from({ length: 200 }, (_, n) => n + 1),
  );
  const big = submit(compute, { do: 'big', bytes: 4 << 20 }, { lane: 'interactive' });
  const outcome = await big.handle.outcome;
  assert.ok(outcome.type === 'evaluate' && (outcome.report.text as string).length === 4 << 20);
});

test('closing lets jobs end in order and leaves nothing behind', async (t) => {
  const compute = testCompute(t);
  const training = submit(compute, { do: 'work', steps: 10_000, stepMs: 20 });
  const waiting = submit(compute, { do: 'work', steps: 1, stepMs: 1 });
  const deaf = submit(compute, { do: 'deaf' }, { lane: 'interactive' });
  await Promise.all([training.first('step'), deaf.first('heartbeat')]);
  const pids = compute.stats().hosts.map(({ pid }) => pid);
  const start = Date.now();
  await compute.close(4_000);
  assert.ok(Date.now() - start < 4_500, `${Date.now() - start} ms`);
  const outcome = await training.handle.outcome;
  assert.ok(outcome.type === 'train' && outcome.stopped);
  assert.equal((await failure(waiting.handle)).context.reason, 'shutdown');
  assert.equal((await failure(deaf.handle)).code, 'cancelled');
  assert.deepEqual(pids.map(runs), [false, false]);
  const late = submit(compute, { do: 'work', steps: 1, stepMs: 1 });
  assert.equal((await failure(late.handle)).context.reason, 'shutdown');
});

test('a host that cannot start says why', async (t) => {
  const noAddon = testCompute(t, { engineAddon: '/nonexistent/engine.node' });
  const failed = await failure(submit(noAddon, { do: 'deaf' }).handle);
  assert.equal(failed.context.reason, 'start_failed');
  assert.match(failed.message, /engine cannot be loaded: .*nonexistent/);
  const noCommand = testCompute(t, { launcher: commandLauncher(['/nonexistent/srun']) });
  assert.match((await failure(submit(noCommand, { do: 'deaf' }).handle)).message, /did not start: spawn .*ENOENT/);
  const dies = testCompute(t, { launcher: commandLauncher(['sh', '-c', 'echo no partition given >&2; exit 9', 'sh']) });
  assert.match((await failure(submit(dies, { do: 'deaf' }).handle)).message, /exit code 9.*no partition given/s);
});

test('the same protocol over standard streams, through another command', async (t) => {
  const noisy = ['sh', '-c', 'echo srun: job 7 queued; exec "$@"', 'sh'];
  const compute = testCompute(t, { launcher: commandLauncher(noisy, 'slurm') });
  const job = submit(compute, { do: 'work', steps: 5, stepMs: 10 });
  assert.equal((await job.handle.outcome).type, 'train');
  assert.ok(job.events.some(({ event }) => event.type === 'step'));
  const stopped = submit(compute, { do: 'work', steps: 10_000, stepMs: 10 });
  await stopped.first('step');
  await stopped.handle.stop();
  const outcome = await stopped.handle.outcome;
  assert.ok(outcome.type === 'train' && outcome.stopped);
  const printed = submit(compute, { do: 'print', lines: ['torn {"t":"outcome"'] });
  assert.equal((await failure(printed.handle)).context.signal, 'SIGABRT');
  const big = submit(compute, { do: 'big', bytes: 2 << 20 }, { lane: 'interactive' });
  assert.equal((await big.handle.outcome).type, 'evaluate');
});

test('hosts run as steps of a Slurm job', async (t) => {
  const folder = workspace();
  // Takes its own options away and runs the rest, as the real one does on the node it is given.
  const srun =
    '#!/bin/sh\necho "$@" > "$SRUN_LOG"\nwhile case "$1" in --*) true;; *) false;; esac; do shift; done\nexec "$@"\n';
  writeFileSync(join(folder, 'srun'), srun, { mode: 0o755 });
  const hostEnv = { PATH: `${folder}:${process.env.PATH}`, SRUN_LOG: join(folder, 'log') };
  const compute = testCompute(t, { launcher: launcherOf('slurm --partition=gpu'), hostEnv });
  assert.equal((await submit(compute, { do: 'work', steps: 2, stepMs: 1 }).handle.outcome).type, 'train');
  assert.match(readFileSync(hostEnv.SRUN_LOG, 'utf8'), /^--ntasks=1 .*--partition=gpu sh -c/);
  assert.deepEqual([launcherOf('local').name, launcherOf('ssh gpu1').name], ['local', 'ssh']);
});

test('promise 21: fifty hosts started and ended leave no process and no descriptor', async (t) => {
  const compute = testCompute(t, { cpuSlots: 5, trainIdleMs: 1 });
  const pids = new Set<number>();
  const round = async (): Promise<void> => {
    const jobs = Array.from({ length: 5 }, () => submit(compute, { do: 'work', steps: 10_000, stepMs: 5 }));
    await Promise.all(jobs.map((job) => job.first('step')));
    for (const { pid } of compute.stats().hosts) pids.add(pid);
    await Promise.all(jobs.map((job) => job.handle.stop()));
    for (let n = 0; n < 500 && compute.stats().hosts.length > 0; n++) await sleep(10);
  };
  await round();
  const before = openDescriptors();
  for (let n = 1; n < 10; n++) await round();
  assert.equal(pids.size, 50);
  assert.deepEqual([...pids].filter(runs), []);
  assert.equal(compute.stats().restarts, 0);
  assert.ok(openDescriptors() <= before + 2, `${openDescriptors()} descriptors, ${before} before`);
});

test('promise 21: what a host started ends with it, also outside its group', async (t) => {
  const compute = testCompute(t);
  const job = submit(compute, { do: 'orphan-child' });
  const warning = await job.first('warning');
  const child = Number(warning.type === 'warning' ? warning.message : 0);
  assert.ok(runs(child));
  await failure(job.handle);
  assert.ok(await ends(child, 1_000));
});

/** A control group with little memory, where the system lets us make one. */
function smallMemory(mb: number): { confine(pid: number): void; remove(): void } | undefined {
  try {
    const lines = readFileSync('/proc/self/cgroup', 'utf8').split('\n');
    const v1 = lines.find((line) => /:memory:/.test(line))?.split(':')[2];
    const v2 = lines.find((line) => line.startsWith('0::'))?.slice(3);
    const parent = v1 === undefined ? `/sys/fs/cgroup${v2}` : `/sys/fs/cgroup/memory${v1}`;
    const folder = join(parent, `oarlock-test-${process.pid}`);
    mkdirSync(folder);
    writeFileSync(join(folder, v1 === undefined ? 'memory.max' : 'memory.limit_in_bytes'), `${mb << 20}`);
    return {
      confine: (pid) => writeFileSync(join(folder, 'cgroup.procs'), String(pid)),
      remove: () => rmdirSync(folder),
    };
  } catch {
    return undefined;
  }
}

async function warmHost(compute: Compute): Promise<number> {
  await submit(compute, { do: 'work', steps: 1, stepMs: 1 }).handle.outcome;
  return compute.stats().hosts[0]?.pid ?? 0;
}

test('promise 19: a host that runs out of memory fails its job with the numbers', async (t) => {
  const group = smallMemory(256);
  if (group === undefined) return t.skip('control groups cannot be made here');
  const compute = testCompute(t);
  group.confine(await warmHost(compute));
  await sleep(2_200); // until its memory was looked at again
  const failed = await failure(submit(compute, { do: 'memory', mb: 2_000 }).handle);
  assert.deepEqual([failed.code, failed.context.reason], ['resource_exhausted', 'out_of_memory']);
  assert.match(failed.message, /of 256 MiB/);
  assert.equal(failed.context.limit_mb, 256);
  group.remove(); // the killed host was its last process
  assert.equal((await submit(compute, { do: 'work', steps: 1, stepMs: 1 }).handle.outcome).type, 'train');
});
