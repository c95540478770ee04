import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { TaskStatus } from '../../domain/enums.js';
import { notFound, notReady } from '../../domain/errors.js';
import { TestServer } from '../testing/client.js';
import { demoRoutes } from './demo.js';
import { evaluateFileRoutes } from './evaluate-file.js';

const folder = mkdtempSync(join(tmpdir(), 'oarlock-demo-route-'));
const calls: string[] = [];
const demo = {
  async download(type: string) {
    calls.push(`download ${type}`);
  },
  state: (type: string) => ({ status: type === 'detection' ? (0 as const) : null, progress: 37.2, message: '' }),
  async load(type: string) {
    if (type === 'segmentation') throw notReady('not downloaded');
    return type === 'detection' ? { loading_status: 'dataset already exists' } : { did: 'D0001', pid: 'P0001' };
  },
  async stop(type: string) {
    calls.push(`stop ${type}`);
  },
};
const report = { label_list: ['a'], epoch: null, Confusion_Matrix: [[3]], Acc1: 1 };
const task = { id: 'T0001', path: folder };
const tasks = {
  get(tid: string) {
    if (tid !== 'T0001' && tid !== 'T0002') throw notFound('task', tid);
    return { ...task, id: tid } as never;
  },
  list: () => [task] as never,
};
const jobs = {
  get: (tid: string) => (tid === 'T0001' ? ({ status: TaskStatus.XEVALUATED } as never) : undefined),
  report: async () => ({ path: join(folder, 'eval_res.json'), report }),
};

let server: TestServer;
before(async () => {
  server = await TestServer.start({ routes: [...demoRoutes({ demo }), ...evaluateFileRoutes({ jobs, tasks })] });
});
after(async () => {
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
});
const ask = async (method: string, path: string, body: Record<string, unknown>) =>
  (await server.ask(path, { method, body })).json;

test('demo: wrong types and actions are refused', async () => {
  for (const body of [{}, { prj_type: 'poetry' }, { prj_type: 9 }, { prj_type: null }]) {
    for (const method of ['GET', 'PUT']) {
      const answer = await ask(method, '/demo', body);
      assert.deepEqual(
        [answer.status, answer.code, answer.context.field],
        [-1, 'invalid_argument', 'prj_type'],
        JSON.stringify(body),
      );
    }
  }
  const answer = await ask('POST', '/demo', { prj_type: 0, type: 'eat' });
  assert.deepEqual([answer.status, answer.context.field], [-1, 'type']);
  assert.equal((await ask('POST', '/demo', { prj_type: 2, type: 'load' })).code, 'not_ready');
  assert.deepEqual(calls, []);
});

test('demo: the type as name, number or numeric text; progress is a number', async () => {
  for (const prj_type of ['detection', 1, '1']) {
    assert.deepEqual(await ask('GET', '/demo', { prj_type }), {
      status: 1,
      attr: { status: 0, progress: 37.2, message: '' },
    });
  }
  const byQuery = await server.ask('/demo?prj_type=0');
  assert.deepEqual(byQuery.json, { status: 1, attr: { status: null, progress: 37.2, message: '' } });
  assert.deepEqual(await ask('POST', '/demo', { prj_type: 0, type: 'download' }), { status: 1 });
  assert.deepEqual(await ask('POST', '/demo', { prj_type: '0', type: 'load' }), {
    status: 1,
    did: 'D0001',
    pid: 'P0001',
  });
  assert.deepEqual(await ask('POST', '/demo', { prj_type: 1, type: 'load' }), {
    status: 1,
    loading_status: 'dataset already exists',
  });
  assert.deepEqual(await ask('PUT', '/demo', { prj_type: 'classification' }), { status: 1 });
  assert.deepEqual(calls, ['download classification', 'stop classification']);
});

test('evaluation file: nothing but the report of a task is answered', async () => {
  const path = '/project/task/evaluate/file';
  assert.equal((await ask('GET', path, {})).context.field, 'tid');
  assert.equal((await ask('GET', path, { tid: 'T0009' })).code, 'not_found');
  const none = await ask('GET', path, { tid: 'T0002' });
  assert.deepEqual([none.status, none.path], [-1, null]);
  assert.match(none.message, /Evaluate it first/);
  for (const wanted of [
    '/etc/passwd',
    join(folder, 'params.json'),
    join(folder, '..', 'eval_res.json'),
    `${folder}/x/../eval_res.json`,
  ]) {
    assert.equal((await ask('GET', path, { path: wanted })).code, 'not_found', wanted);
  }
  assert.deepEqual(await ask('GET', path, { path: join(folder, 'eval_res.pkl') }), report);
  assert.deepEqual(await ask('GET', path, { path: join(folder, 'eval_res.json') }), report);
});

test('evaluation file: the spreadsheet', async () => {
  const answer = await ask('GET', '/project/task/evaluate/file', { tid: 'T0001', topk: 1 });
  assert.deepEqual([answer.status, answer.path], [1, join(folder, 'report-taskT0001.xls')]);
  assert.equal((await readFile(answer.path)).subarray(0, 2).toString(), 'PK');
});
