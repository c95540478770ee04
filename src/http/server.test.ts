/** The whole edge over real services: every route with rubbish, escapes and wrong states. */
import assert from 'node:assert/strict';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Validator } from '@seriousme/openapi-schema-validator';
import fc from 'fast-check';
import { pino } from 'pino';
import { createServices, type Services } from '../services.js';
import type { Route } from './route.js';
import { createEdge, type Edge } from './server.js';
import { OPEN_CONFIG, type Reply, TestServer } from './testing/client.js';

let base: string;
let services: Services;
let edge: Edge;
let server: TestServer;
const logged: string[] = [];

before(async () => {
  base = realpathSync(mkdtempSync(join(tmpdir(), 'oarlock-edge-')));
  for (const folder of ['ws', 'data/set/a', 'outside/deep', 'ws_evil'])
    mkdirSync(join(base, folder), { recursive: true });
  for (const file of ['outside/canary.txt', 'outside/deep/canary.png', 'ws_evil/canary.txt', 'data/set/a/x.png']) {
    writeFileSync(join(base, file), 'canary');
  }
  symlinkSync(join(base, 'outside'), join(base, 'data/link'));
  const log = pino({ level: 'warn' }, { write: (line: string) => void logged.push(line) });
  services = await createServices({ workspace: join(base, 'ws'), dataRoots: [join(base, 'data')] }, { log });
  edge = createEdge({ services, config: { ...OPEN_CONFIG, gui: null }, version: '0.0.0', checkAnswers: true });
  server = await TestServer.around(edge.server);
});
after(async () => {
  await edge.close(500);
  await services.close(2000);
  rmSync(base, { recursive: true, force: true });
});

const call = (route: Route, input: unknown): Promise<Reply> =>
  server.ask(route.path, { method: route.method.toUpperCase(), body: input });

/** What every handled call must look like, whatever was sent. */
function assertHandled(reply: Reply, what: string): void {
  assert.equal(reply.status, 200, `${what}: HTTP ${reply.status} ${reply.text.slice(0, 300)}`);
  if (!String(reply.headers['content-type']).startsWith('application/json')) return;
  const { json } = reply;
  assert.ok(json.status === 1 || json.status === -1 || 'h' in json, `${what}: ${reply.text.slice(0, 300)}`);
  if (json.code === undefined) return;
  assert.equal(json.status, -1);
  assert.notEqual(json.code, 'internal', `${what}: ${reply.text} ${logged.at(-1)}`);
  assert.ok(
    typeof json.message === 'string' && json.message.length > 5 && json.message.length < 600,
    `${what}: ${reply.text}`,
  );
  assert.ok(!/\n|\bat .*\.js:|node_modules|\[object/.test(json.message), `${what}: ${json.message}`);
  assert.ok(what.includes('undefined') || !json.message.includes('undefined'), `${what}: ${json.message}`);
}

test('the description of all routes is valid OpenAPI 3.1 and holds each of them', async () => {
  const { json, headers } = await server.ask('/openapi.json');
  assert.match(String(headers['content-type']), /^application\/json/);
  const result = await new Validator().validate(json);
  assert.deepEqual(result.errors ?? [], []);
  for (const route of edge.routes) {
    const operation = json.paths[route.path][route.method];
    assert.equal(operation.summary, route.summary);
    assert.ok(operation.summary.length > 5);
  }
  const ids = Object.values(json.paths).flatMap((item) => Object.values(item as object).map((o) => o.operationId));
  assert.equal(new Set(ids).size, ids.length);
});

test('every route of the PaddleX API is there', () => {
  const expected: Record<string, string> = {
    '/workspace': 'get put post',
    '/dataset': 'get post put delete',
    '/dataset/split': 'put',
    '/dataset/details': 'get',
    '/dataset/image': 'get',
    '/dataset/file': 'get',
    '/dataset/npy': 'get',
    '/file': 'get',
    '/project': 'get post delete',
    '/project/task': 'get post delete',
    '/project/task/params': 'get post',
    '/project/task/metrics': 'get',
    '/project/task/train': 'post put',
    '/project/task/train/file': 'get',
    '/project/task/prune': 'get post put',
    '/project/task/evaluate': 'get post',
    '/project/task/evaluate/file': 'get',
    '/project/task/predict': 'get post put',
    '/project/task/export': 'get post put',
    '/project/task/vdl': 'get',
    '/system': 'get delete',
    '/demo': 'get post put',
    '/model': 'get post delete',
    '/model/file': 'get',
  };
  const have = new Set(edge.routes.map((route) => `${route.method} ${route.path}`));
  const missing = Object.entries(expected).flatMap(([path, methods]) =>
    methods.split(' ').flatMap((method) => (have.has(`${method} ${path}`) ? [] : [`${method} ${path}`])),
  );
  assert.deepEqual(missing, []);
});

test('every route answers nothing at all, unknown ids and wrong types with a named error', async () => {
  for (const route of edge.routes) {
    const names = Object.keys(route.input.shape);
    assertHandled(await call(route, undefined), `${route.method} ${route.path} without arguments`);
    for (const id of [
      'D9999',
      'P9999',
      'T9999',
      '',
      'undefined',
      '../..',
      '__proto__',
      'constructor',
      'x'.repeat(10_000),
      '\u0000',
      '花',
    ]) {
      const input = Object.fromEntries(names.map((name) => [name, id]));
      assertHandled(await call(route, input), `${route.method} ${route.path} ${JSON.stringify(id).slice(0, 20)}`);
    }
    for (const value of [
      null,
      7,
      -1,
      1e308,
      true,
      [],
      {},
      [[]],
      { a: 1 },
      [null],
      '[]',
      '{}',
      Number.MAX_SAFE_INTEGER,
    ]) {
      const input = Object.fromEntries(names.map((name) => [name, value]));
      assertHandled(await call(route, input), `${route.method} ${route.path} ${JSON.stringify(value)}`);
    }
  }
});

test('promise 30, promise 2: a fuzzed session over all routes ends in handled answers, and files outside survive', async () => {
  const known = fc.constantFrom(
    'D0001',
    'D0002',
    'P0001',
    'P0002',
    'T0001',
    'T0002',
    'classification',
    'detection',
    'train',
    'eval',
    'stop',
    'resume',
    'infer',
    'lite',
    'exported',
    'pretrained',
    'download',
    'load',
    'project',
    'dataset',
    'task',
    'name',
    'did',
    'machine_info',
    '',
    '.',
    '..',
    '/',
  );
  const paths = fc.constantFrom(
    `${base}/outside`,
    `${base}/data/link/canary.txt`,
    `${base}/ws_evil`,
    `${base}/data/set`,
    '../outside',
    '/',
    `${base}/ws/datasets/D0001`,
  );
  const value = fc.oneof(
    { weight: 4, arbitrary: known },
    { weight: 2, arbitrary: paths },
    fc.jsonValue({ maxDepth: 2 }),
    fc.integer({ min: -2, max: 40 }),
    fc.double({ min: -1, max: 2, noNaN: true }),
    fc.boolean(),
    fc.array(known, { maxLength: 3 }),
    fc.dictionary(fc.constantFrom('did', 'name', 'path', 'id', 'num_epochs', 'model', '__proto__'), known, {
      maxKeys: 3,
    }),
  );
  // Training for real is other tests' matter: here nothing may get that far, because nothing is imported whole.
  const step = fc.constantFrom(...edge.routes).chain((route) => {
    const names = Object.keys(route.input.shape);
    return fc.record({
      route: fc.constant(route),
      input:
        names.length === 0
          ? fc.constant({})
          : fc.dictionary(fc.constantFrom(...names), value, { maxKeys: names.length }),
      inQuery: fc.boolean(),
    });
  });
  let done = 0;
  let accepted = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 12 }), async (steps) => {
      for (const { route, input, inQuery } of steps) {
        const query = new URLSearchParams(
          Object.entries(input).map(([name, one]): [string, string] => [
            name,
            typeof one === 'string' ? one : JSON.stringify(one),
          ]),
        );
        const reply = inQuery
          ? await server.ask(`${route.path}?${query}`, { method: route.method.toUpperCase() })
          : await call(route, input);
        assertHandled(reply, `${route.method} ${route.path} ${JSON.stringify(input)}`);
        assert.ok(!reply.text.includes('"canary') && reply.text !== 'canary', 'a file outside came back');
        done++;
        if (reply.text.startsWith('{"status":1')) accepted++;
      }
    }),
    { numRuns: 120, interruptAfterTimeLimit: 60_000 },
  );
  assert.ok(accepted > 20, `${accepted} of ${done} calls were accepted`);
  for (const file of ['outside/canary.txt', 'outside/deep/canary.png', 'ws_evil/canary.txt', 'data/set/a/x.png']) {
    assert.equal(readFileSync(join(base, file), 'utf8'), 'canary', file);
  }
  assert.deepEqual(readdirSync(join(base, 'outside')).sort(), ['canary.txt', 'deep']);
  assert.equal((await server.ask('/healthz')).json.ok, true);
});

test('promise 1: folders to import from and attributes that name paths stay inside the roots', async () => {
  const created = await server.ask('/dataset', {
    method: 'POST',
    body: { name: 'a', desc: '', dataset_type: 'classification' },
  });
  const did = created.json.did as string;
  for (const path of [
    `${base}/outside`,
    `${base}/data/link`,
    `${base}/ws_evil`,
    '/etc',
    '../outside',
    '..\\outside',
    `${base}/data/../outside`,
    '/',
    '\0',
    `${base}/ws/.oarlock`,
  ]) {
    const { json } = await server.ask('/dataset', { method: 'PUT', body: { did, path } });
    assert.equal(json.status, -1, path);
    assert.ok(['forbidden_path', 'invalid_argument', 'not_found'].includes(json.code), `${path}: ${json.code}`);
  }
  const put = await server.ask('/workspace', {
    method: 'PUT',
    body: { struct: 'dataset', id: did, attr_dict: { path: '/etc' } },
  });
  assert.equal(put.json.status, -1);
});

test('health, metrics, docs and pages answer', async () => {
  assert.equal((await server.ask('/healthz')).json.ok, true);
  const metrics = await server.ask('/metrics');
  assert.match(metrics.text, /^oarlock_http_requests_total\{method="GET",route="\/openapi\.json",status="200"\} \d+$/m);
  assert.match(metrics.text, /^oarlock_jobs_running \d+$/m);
  assert.match(metrics.text, /^process_resident_memory_bytes /m);
  // The number of series does not grow with what clients send.
  await server.ask('/some/path/nobody/has');
  assert.ok(!(await server.ask('/metrics')).text.includes('/some/path'));
  // Below a trailing slash the page would look for its files in the wrong place.
  const slashed = await server.ask('/docs/');
  assert.deepEqual([slashed.status, slashed.headers.location], [308, '/docs']);
  for (const path of ['/', '/home', '/docs']) {
    const page = await server.ask(path);
    assert.equal(page.status, 200, path);
    assert.match(page.text, /^<!doctype html>/);
    assert.ok(!/https?:\/\/(?!www\.w3\.org)/.test(page.text), `${path} loads something from elsewhere`);
  }
});

test('promise 31: the log holds no file content and no secrets of requests', () => {
  assert.ok(!logged.some((line) => line.includes('canary')));
});
