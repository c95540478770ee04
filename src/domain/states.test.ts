import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { DatasetStatus, TaskStatus } from './enums.js';
import { OarlockError } from './errors.js';
import { SIDE_JOBS, type SideJob } from './records.js';
import { allowed, type EventOf, MACHINES, type MachineName, next, stateName } from './states.js';
import { failedOutcome } from './testing/compute.js';
import { Harness } from './testing/harness.js';

describe('transition table', () => {
  it('refuses what it does not list, naming the state', () => {
    assert.throws(() => next('task', 'T0001', TaskStatus.XTRAINING, 'train'), {
      code: 'conflict',
      message: 'T0001 cannot start training while it is in training.',
      context: { state: 'XTRAINING' },
    });
    assert.throws(() => next('dataset', 'D0001', DatasetStatus.XEMPTY, 'split'), { context: { state: 'XEMPTY' } });
  });
  it('returns to the state before when an export or analysis ends without success', () => {
    for (const settled of [TaskStatus.XTRAINDONE, TaskStatus.XEVALUATED, TaskStatus.XTRAINEXIT]) {
      assert.equal(next('task', 'T', TaskStatus.XEXPORTING, 'exportEnd', settled), settled);
      assert.equal(next('task', 'T', TaskStatus.XPRUNEING, 'pruneEnd', settled), settled);
    }
  });
  it('never leads a task into a state that PaddleX pages do not expect there', () => {
    const reached = new Set<number>();
    for (const [event, rows] of Object.entries(MACHINES.task)) {
      for (const row of rows) {
        for (const from of row.from) {
          const to = allowed('task', from, event as EventOf<'task'>);
          if (to !== undefined && to !== from) reached.add(to);
        }
      }
    }
    const never = [TaskStatus.XUNINIT, TaskStatus.XDOWNLOADING, TaskStatus.XEVALUATING, TaskStatus.XEVALUATEFAIL];
    for (const state of never) assert.ok(!reached.has(state), stateName('task', state));
  });
});

/** Every state change that the table allows, as `from>to`. */
function edges(machine: MachineName): Set<string> {
  const found = new Set<string>();
  const states = Array.from({ length: 18 }, (_, n) => n - 1);
  for (const event of Object.keys(MACHINES[machine])) {
    for (const from of states) {
      for (const settled of states) {
        const to = allowed(machine, from, event as never, settled);
        if (to !== undefined) found.add(`${from}>${to}`);
      }
    }
  }
  return found;
}

const ANALYSED = { type: 'sensitivity' as const, path: '', metric: 'acc1', base: 1, layers: 1, curve: [] };

type Command = (h: Harness) => Promise<unknown>;

const dids = fc.constantFrom('D0001', 'D0002');
const tids = fc.constantFrom('T0001', 'T0001', 'T0002');
const jobs = fc.constantFrom<SideJob>('evaluate', 'predict', 'export', 'prune');

const datasetAction: fc.Arbitrary<[string, Command]> = fc.oneof(
  fc.constant<[string, Command]>([
    'create dataset',
    (h) => h.services.datasets.create({ name: 'x', desc: '', type: 'classification' }),
  ]),
  dids.map((did): [string, Command] => [`import ${did}`, (h) => h.services.datasets.import(did, h.source)]),
  dids.map((did): [string, Command] => [`split ${did}`, (h) => h.services.datasets.split(did, 0.2, 0.1)]),
  fc
    .tuple(dids, fc.boolean())
    .map(([did, force]): [string, Command] => [`delete ${did}`, (h) => h.services.datasets.delete(did, { force })]),
  fc.tuple(dids, fc.boolean(), fc.boolean()).map(([did, good, copies]): [string, Command] => [
    `import job of ${did} ends ${good ? 'well' : 'badly'}`,
    async (h) => {
      const job = h.compute.jobs.get(`${did}/import`);
      if (copies) job?.event({ type: 'progress', stage: 'copying', done: 1, total: 2 });
      const details = { labels: ['a'], train_files: [], val_files: [], test_files: [] };
      job?.end(
        good ? { type: 'import', details, split: copies, files: 1, warnings: [] } : failedOutcome('internal', 'broken'),
      );
    },
  ]),
);

const taskAction: fc.Arbitrary<[string, Command]> = fc.oneof(
  tids.map((tid): [string, Command] => [
    `a checkpoint of ${tid} is saved`,
    async (h) => {
      if (h.services.store.get('task', tid) === undefined) return;
      h.checkpoint(tid, 'best_model');
      h.checkpoint(tid, 'epoch_1');
    },
  ]),
  tids.map((tid): [string, Command] => [`train ${tid}`, (h) => h.services.training.start(tid)]),
  tids.map((tid): [string, Command] => [`stop ${tid}`, (h) => h.services.training.stop(tid)]),
  tids.map((tid): [string, Command] => [`resume ${tid}`, (h) => h.services.training.resume(tid)]),
  fc.tuple(tids, fc.constantFrom('done', 'failed', 'stopped')).map(([tid, end]): [string, Command] => [
    `training job of ${tid} ends: ${end}`,
    async (h) => {
      const job = h.compute.jobs.get(`${tid}/train`);
      if (job === undefined) return;
      h.checkpoint(tid, 'best_model');
      h.checkpoint(tid, 'epoch_1');
      job.event({ type: 'started', device: 'cpu', precision: 'fp32', notes: [] });
      if (end === 'failed') job.end(failedOutcome('internal', 'broken'));
      else job.end({ type: 'train', stopped: end === 'stopped', completed_epochs: 1, best_epoch: 1, best_metrics: {} });
    },
  ]),
  tids.map((tid): [string, Command] => [`evaluate ${tid}`, (h) => h.services.jobs.evaluate(tid, {})]),
  tids.map((tid): [string, Command] => [`predict ${tid}`, (h) => h.services.jobs.predict(tid, { image_data: 'AAAA' })]),
  tids.map((tid): [string, Command] => [`analyse ${tid}`, (h) => h.services.pruning.analyse(tid)]),
  tids.map((tid): [string, Command] => [
    `export ${tid}`,
    (h) => h.services.jobs.export(tid, { save_dir: `${h.folder}/out/${tid}` }),
  ]),
  fc
    .tuple(tids, jobs)
    .map(([tid, job]): [string, Command] => [`stop ${job} ${tid}`, (h) => h.services.jobs.stop(tid, job)]),
  fc.tuple(tids, jobs, fc.boolean()).map(([tid, kind, good]): [string, Command] => [
    `${kind} job of ${tid} ends ${good ? 'well' : 'badly'}`,
    async (h) => {
      const results = {
        evaluate: { type: 'evaluate' as const, report: {} },
        predict: { type: 'predict' as const, items: [] },
        export: { type: 'export' as const, path: '/x', parameters: 1, macs: 1 },
        prune: { ...ANALYSED, stopped: false },
      };
      h.compute.jobs.get(`${tid}/${kind}`)?.end(good ? results[kind] : failedOutcome('internal', 'broken'));
    },
  ]),
  fc
    .tuple(tids, fc.boolean())
    .map(([tid, force]): [string, Command] => [`delete ${tid}`, (h) => h.services.tasks.delete(tid, { force })]),
  fc.constant<[string, Command]>([
    'create pruning task',
    (h) => h.services.tasks.create({ pid: 'P0001', parent_id: 'T0001' }),
  ]),
  fc.constant<[string, Command]>([
    'create task',
    (h) => h.services.tasks.create({ pid: 'P0001', train: { num_epochs: 3 } }),
  ]),
);

/** One client's or job's action. */
const action = fc.oneof({ weight: 1, arbitrary: datasetAction }, { weight: 4, arbitrary: taskAction });

const RUNNING_TASK: readonly number[] = [TaskStatus.XTRAINING, TaskStatus.XPRUNETRAIN];

/** What must hold whenever nothing is under way between two actions. */
function invariants(h: Harness): void {
  const { store, training, jobs: sideJobs } = h.services;
  for (const task of store.list('task')) {
    const training_ = RUNNING_TASK.includes(task.status);
    assert.equal(h.compute.jobs.has(`${task.id}/train`), training_, `${task.id} is ${task.status}`);
    assert.equal(training.isLive(task.id), training_, task.id);
    assert.equal(
      sideJobs.isLive(task.id, 'export'),
      task.status === TaskStatus.XEXPORTING,
      `${task.id} ${task.status}`,
    );
    assert.equal(sideJobs.isLive(task.id, 'prune'), task.status === TaskStatus.XPRUNEING, `${task.id} ${task.status}`);
    assert.ok(store.get('project', task.pid));
  }
  for (const job of store.list('sidejob')) assert.ok(store.get('task', job.tid), `${job.id} belongs to a task`);
  for (const dataset of store.list('dataset')) {
    const importing = dataset.status === DatasetStatus.XCHECKING || dataset.status === DatasetStatus.XCOPYING;
    assert.equal(h.compute.jobs.has(`${dataset.id}/import`), importing, `${dataset.id} is ${dataset.status}`);
  }
}

/** Until no acknowledged action has work left in the background. */
async function quiet(h: Harness): Promise<void> {
  const { store, training, jobs: sideJobs } = h.services;
  await h.until(() => {
    const tasks = store.list('task');
    const open = tasks.some((task) => training.isLive(task.id) !== h.compute.jobs.has(`${task.id}/train`));
    const jobsOpen = tasks.some((task) =>
      SIDE_JOBS.some((job) => sideJobs.isLive(task.id, job) !== h.compute.jobs.has(`${task.id}/${job}`)),
    );
    const imports = store
      .list('dataset')
      .some(({ id, status }) => (status === 1 || status === 3) !== h.compute.jobs.has(`${id}/import`));
    return !open && !jobsOpen && !imports;
  });
}

describe('promise 25: no order of calls, one after the other or at once, leaves the table', () => {
  it('model-based, against real services and a real store', { timeout: 300_000 }, async () => {
    const legal = new Map((Object.keys(MACHINES) as MachineName[]).map((name) => [name, edges(name)]));
    const taken = new Set<string>();
    const batches = fc.array(fc.array(action, { minLength: 1, maxLength: 4 }), { minLength: 25, maxLength: 60 });
    await fc.assert(
      fc.asyncProperty(batches, async (program) => {
        const ends: (() => Promise<void>)[] = [];
        const h = await Harness.start({ after: (work: () => Promise<void>) => void ends.push(work) });
        try {
          await h.project();
          await h.task('P0001');
          await h.task('P0001');
          const seen = new Map<string, number>();
          // An event bus drops listeners that throw, so what they find is looked at later.
          const illegal: string[] = [];
          h.services.events.subscribe((event) => {
            const data = event.data as { id: string; status?: number; action?: string; job?: SideJob };
            const machine =
              event.type === 'job'
                ? data.job
                : event.type === 'task' || event.type === 'dataset'
                  ? event.type
                  : undefined;
            if (machine === undefined || data.status === undefined) return;
            const name = `${machine}/${data.id}`;
            const from = seen.get(name);
            seen.set(name, data.status);
            if (from !== undefined && from !== data.status) {
              taken.add(`${machine} ${from}>${data.status}`);
              if (!legal.get(machine)?.has(`${from}>${data.status}`)) illegal.push(`${name}: ${from} > ${data.status}`);
            }
          });
          for (const batch of program) {
            const outcomes = await Promise.allSettled(batch.map(([, run]) => run(h)));
            for (const [at, outcome] of outcomes.entries()) {
              if (outcome.status === 'fulfilled') continue;
              const { reason } = outcome;
              assert.ok(
                reason instanceof OarlockError && reason.code !== 'internal',
                `${batch[at]?.[0]}: ${reason?.stack}`,
              );
            }
            await quiet(h);
            invariants(h);
            assert.deepEqual(illegal, [], batch.map(([name]) => name).join(' | '));
          }
        } finally {
          for (const end of ends) await end();
        }
      }),
      { numRuns: 20, interruptAfterTimeLimit: 60_000, markInterruptAsFailure: false },
    );
    // The programs really got around.
    assert.ok(taken.size >= 15, [...taken].join(', '));
  });

  it('64 clients that start the same training at once: one wins, the others are told', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.task();
    const outcomes = await Promise.allSettled(Array.from({ length: 64 }, () => h.services.training.start(tid)));
    assert.equal(outcomes.filter((outcome) => outcome.status === 'fulfilled').length, 1);
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected') assert.equal((outcome.reason as OarlockError).code, 'conflict');
    }
    assert.equal(h.compute.submitted.filter((spec) => spec.kind === 'train').length, 1);
  });
});
