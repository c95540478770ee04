import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { notFound } from '../../domain/errors.js';
import { createStored, mergeStored, suggestParams, type TrainParams } from '../../domain/params/index.js';
import { TestServer } from '../testing/client.js';
import { paramsRoutes } from './params.js';

const defaults = { trainImages: 100, classes: 3, freeMemoryMb: 0, hasWeights: () => false };
const stored = new Map<string, TrainParams>([
  ['T0001', createStored('classification', {}, { ...defaults, gpus: [] }).train],
]);
const asked: unknown[] = [];
const get = (tid: string): TrainParams => {
  const train = stored.get(tid);
  if (train === undefined) throw notFound('task', tid);
  return train;
};
const tasks = {
  params: get,
  async setParams(tid: string, train: Readonly<Record<string, unknown>>) {
    stored.set(tid, mergeStored('classification', get(tid), train).train);
  },
  async suggest(pid: string, options: { model?: string; gpus?: readonly number[] } = {}) {
    if (pid !== 'P0001') throw notFound('project', pid);
    asked.push(options);
    return suggestParams({ ...defaults, type: 'classification', gpus: [], model: options.model }).train;
  },
};

let server: TestServer;
before(async () => {
  server = await TestServer.start({ routes: paramsRoutes({ tasks }) });
});
after(() => server.stop());

const call = async (method: string, body?: Record<string, unknown>, query = '') => {
  const reply = await server.ask(`/project/task/params${query}`, { method, ...(body === undefined ? {} : { body }) });
  assert.equal(reply.status, 200);
  return reply.json;
};

test('wrong questions are answered with status -1, a code and the field', async () => {
  const table: [string, Record<string, unknown>, string, string?][] = [
    ['GET', {}, 'invalid_argument', 'tid'],
    ['GET', { tid: 'T0009' }, 'not_found'],
    ['GET', { pid: 'P0009' }, 'not_found'],
    ['GET', { pid: 'P0001', gpu_list: ['x'] }, 'invalid_argument', 'gpu_list[0]'],
    ['GET', { pid: 'P0001', gpu_list: [-1] }, 'invalid_argument', 'gpu_list[0]'],
    ['GET', { pid: 'P0001', model_type: 'YOLOv3' }, 'invalid_argument', 'model'],
    ['GET', { tid: 5 }, 'invalid_argument', 'tid'],
    ['POST', { tid: 'T0001' }, 'invalid_argument', 'train'],
    ['POST', { train: {} }, 'invalid_argument', 'tid'],
    ['POST', { tid: 'T0001', train: '{"batch_size"' }, 'invalid_argument', 'train'],
    ['POST', { tid: 'T0001', train: [1] }, 'invalid_argument', 'train'],
    ['POST', { tid: 'T0001', train: { batch_size: -4 } }, 'invalid_argument', 'batch_size'],
    ['POST', { tid: 'T0009', train: {} }, 'not_found'],
  ];
  for (const [method, body, code, field] of table) {
    const answer = await call(method, body);
    assert.equal(answer.status, -1, JSON.stringify(body));
    assert.equal(answer.code, code, `${JSON.stringify(body)}: ${answer.message}`);
    if (field !== undefined) assert.equal(answer.context.field, field, JSON.stringify(answer));
  }
  assert.equal(get('T0001').batch_size, 4, 'nothing was changed');
});

test('suggestions by pid, with model and GPUs in every spelling; tid wins', async () => {
  asked.length = 0;
  assert.equal((await call('GET', { pid: 'P0001' })).train.model, 'MobileNetV2');
  for (const gpu_list of [[0, 1], '0,1', '[0, 1]'])
    await call('GET', { pid: 'P0001', model_type: 'ResNet50', gpu_list });
  await call('GET', undefined, '?pid=P0001&gpu_list=0,1&model_type=ResNet50');
  await call('GET', { pid: 'P0001', gpu_list: [] });
  await call('GET', { pid: 'P0001', gpu_list: null, model_type: null });
  assert.deepEqual(asked, [
    {},
    ...Array.from({ length: 4 }, () => ({ model: 'ResNet50', gpus: [0, 1] })),
    { gpus: [] },
    {},
  ]);
  const both = await call('GET', { pid: 'P0009', tid: 'T0001' });
  assert.equal(both.status, 1);
  assert.equal(both.train.optimizer, 'SGD');
});

test('an object, its JSON text and the query change the same stored parameters', async () => {
  assert.deepEqual(await call('POST', { tid: 'T0001', train: { batch_size: '8', use_gpu: true } }), { status: 1 });
  assert.equal((await call('GET', { tid: 'T0001' })).train.batch_size, 8);
  await call('POST', { tid: 'T0001', train: '{"num_epochs": "3", "rotate": "off"}' });
  await call('POST', undefined, `?tid=T0001&train=${encodeURIComponent('{"lr_policy":"Cosine"}')}`);
  const { train } = await call('GET', { tid: 'T0001' });
  assert.deepEqual([train.batch_size, train.num_epochs, train.rotate, train.lr_policy], [8, 3, false, 'Cosine']);
  assert.equal('use_gpu' in train, false);
});
