import assert from 'node:assert/strict';
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { notFound } from '../../domain/errors.js';
import { PathGuard } from '../../domain/paths.js';
import type { CurvePoint } from '../../domain/records.js';
import { Assets } from '../assets.js';
import { TestServer } from '../testing/client.js';
import { fileRoutes } from './file.js';
import { patchAddress, rootPages } from './root.js';
import { systemRoutes } from './system.js';
import { boardPages, vdlRoutes } from './vdl.js';

let base: string;
let ws: string;
let server: TestServer;
let stopped = 0;
const PNG = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=',
  'base64',
);
const GUI = 'a\r\n  var str_srv_url = "http://0.0.0.0:8080";\r\nb 0.0.0.0:8080\r\n';

const curves: Record<string, CurvePoint[]> = {
  T0001: [],
  T0002: [
    { series: 'train', x: 1, values: { Epoch: 1, Step: 1, loss: 2 }, at: 0 },
    { series: 'eval', x: 1, values: { acc1: 0.5 }, at: 0 },
  ],
};
const tasks = {
  get(tid: string) {
    if (!(tid in curves)) throw notFound('task', tid);
    return { id: tid, pid: 'P0001', status: 3 } as never;
  },
};
const training = { curves: (tid: string) => curves[tid] ?? [], record: () => undefined };
const datasets = {
  get(did: string) {
    if (did === 'D0009') throw notFound('dataset', did);
    return { id: did, type: did === 'D0001' ? 'classification' : 'detection', content: 1 } as never;
  },
  preview: async (did: string, path: string, options: object) => Buffer.from(JSON.stringify([did, path, options])),
  annotation: async (path: string) => JSON.stringify({ read: path }),
};

before(async () => {
  base = realpathSync(mkdtempSync(join(tmpdir(), 'oarlock-routes-')));
  ws = join(base, 'ws');
  mkdirSync(join(ws, 'datasets/D0001/花 a'), { recursive: true });
  mkdirSync(join(ws, '.oarlock'));
  mkdirSync(join(base, 'data'));
  writeFileSync(join(ws, 'datasets/D0001/花 a/b c.png'), PNG);
  writeFileSync(join(base, 'data/p.JPG'), 'any bytes');
  for (const name of ['x.xml', 'x.npy', 'x.yml', 'x.json', 'x.csv', 'x.html', 'x.svg', 'x.exe', 'noextension'])
    writeFileSync(join(ws, name), `<${name}>`);
  writeFileSync(join(ws, 'err.log'), Array.from({ length: 120 }, (_, n) => `line ${n}\n`).join(''));
  writeFileSync(join(ws, 'empty.log'), '');
  writeFileSync(join(ws, '.oarlock/data.json'), 'state');
  writeFileSync(join(base, 'secret.txt'), 'secret');
  symlinkSync(join(base, 'secret.txt'), join(ws, 'link.txt'));
  writeFileSync(join(base, 'gui.html'), GUI);
  const paths = new PathGuard({ workspace: ws, data: [join(base, 'data')] });
  const assets = new Assets();
  const compute = { devices: async () => ({ gpus: [], reason: 'no NVIDIA driver' }) };
  server = await TestServer.start({
    routes: [
      ...fileRoutes({ paths, datasets }),
      ...vdlRoutes({ tasks, training }),
      ...systemRoutes({
        compute,
        async stopAll() {
          stopped++;
        },
      }),
    ],
    pages: [
      ...rootPages({ gui: join(base, 'gui.html'), pathPrefix: '', assets }),
      ...boardPages({ tasks, training }, assets),
      ...assets.pages(),
    ],
  });
});
after(async () => {
  await server.stop();
  rmSync(base, { recursive: true, force: true });
});
const file = (path: string, more = '') => `/file?path=${encodeURIComponent(path)}${more}`;

test('promise 1: every route that takes a path refuses what lies outside', async () => {
  for (const route of [
    '/file',
    '/dataset/image',
    '/dataset/file',
    '/model/file',
    '/dataset/npy',
    '/project/task/train/file',
  ]) {
    for (const path of [
      '../secret.txt',
      `${base}/secret.txt`,
      '..\\secret.txt',
      '/etc/passwd',
      'link.txt',
      '.oarlock/data.json',
      '%2e%2e%2fsecret.txt',
      'a\0.png',
    ]) {
      if (route === '/dataset/npy' && !path.includes('..') && !path.startsWith('/')) continue;
      for (const ask of [
        () => server.ask(`${route}?path=${encodeURIComponent(path)}`),
        () => server.ask(`${route}?path=${path.replace('\0', '%00').replace('\\', '%5C')}`),
        () => server.ask(route, { body: { path } }),
      ]) {
        const { status, json, text } = await ask();
        assert.equal(status, 200);
        assert.equal(json.status, -1, `${route} ${path}`);
        assert.ok(['forbidden_path', 'not_found', 'invalid_argument', 'unsupported'].includes(json.code), text);
        assert.ok(!text.includes('"secret"') && !/root:x/.test(text));
      }
    }
    for (const body of [{}, { path: '' }, { path: 7 }, { path: null }, { path: ['a'] }]) {
      const { json } = await server.ask(route, { body });
      assert.deepEqual([json.status, json.code, json.context.field], [-1, 'invalid_argument', 'path']);
    }
  }
});

test('/file: pictures as plain base64', async () => {
  const path = `${ws}/datasets/D0001/花 a/b c.png`;
  const { json, text } = await server.ask(file(path));
  assert.deepEqual(json, { status: 1, img_data: PNG.toString('base64') });
  assert.ok(!text.includes('data:'));
  // As the page asks: nothing but what a browser escapes by itself.
  assert.equal((await server.ask(encodeURI(`/file?path=${path}`))).json.status, 1);
  assert.equal((await server.ask('/file', { body: { path: path.replaceAll('/', '\\') } })).json.status, 1);
  assert.equal(
    (await server.ask(file(`${base}/data/p.JPG`))).json.img_data,
    Buffer.from('any bytes').toString('base64'),
  );
  assert.equal(
    (await server.ask(`/dataset/image?path=${encodeURIComponent(path)}`)).json.img_data,
    PNG.toString('base64'),
  );
  assert.equal((await server.ask(file(path), { method: 'HEAD' })).status, 200);
});

test('/file: a picture that changed is never answered from memory', async () => {
  const path = join(ws, 'again.png');
  for (const content of ['one', 'two', 'two', 'six']) {
    writeFileSync(path, content);
    for (let n = 0; n < 2; n++) {
      assert.equal((await server.ask(file(path))).json.img_data, Buffer.from(content).toString('base64'));
    }
  }
  rmSync(path);
  assert.equal((await server.ask(file(path))).json.code, 'not_found');
  // More than is kept.
  for (let n = 0; n < 40; n++) writeFileSync(join(ws, `many${n}.png`), Buffer.alloc(700_000, n));
  for (let n = 0; n < 40; n++) {
    assert.equal(
      (await server.ask(file(`many${n}.png`))).json.img_data.slice(0, 4),
      Buffer.alloc(3, n).toString('base64'),
    );
  }
});

test('/file: what is missing, a folder or of no known kind', async () => {
  for (const path of ['nothing.png', 'nothing.log', 'nothing.exe', `${ws}/datasets/D0001/no/b.png`]) {
    const { json } = await server.ask(file(path));
    assert.deepEqual([json.status, json.code], [-1, 'not_found'], path);
  }
  for (const path of ['x.html', 'x.svg', 'x.exe', 'noextension']) {
    const { json } = await server.ask(file(path));
    assert.deepEqual([json.status, json.code], [-1, 'unsupported'], path);
  }
  assert.match((await server.ask(file('datasets'))).json.message, /is a folder/);
});

test('/file: labels are drawn for no classification dataset', async () => {
  const path = 'datasets/D0001/花 a/b c.png';
  assert.equal((await server.ask(file(path, '&did=D0001'))).json.code, 'unsupported');
  const drawn = await server.ask(file(path, '&did=D0002&channels=3,1,0'));
  assert.deepEqual(JSON.parse(Buffer.from(drawn.json.img_data, 'base64').toString()), [
    'D0002',
    path,
    { legend: false, channels: [3, 1, 0] },
  ]);
  assert.equal((await server.ask(file(path, '&did=D0009'))).json.code, 'not_found');
});

test('/file: logs and annotations as they are, never as something a browser runs', async () => {
  for (const name of ['x.xml', 'x.npy', 'x.yml', 'x.json', 'x.csv']) {
    const { text, headers } = await server.ask(file(name));
    assert.equal(text, `<${name}>`);
    assert.ok(!/html|xml|svg|javascript/.test(String(headers['content-type'])), String(headers['content-type']));
    assert.match(String(headers['content-security-policy']), /^sandbox/);
  }
  const log = await server.ask(file('err.log'), { headers: { accept: '*/*' } });
  assert.equal(log.text, readFileSync(join(ws, 'err.log'), 'utf8'));
  assert.equal(Number(log.headers['content-length']), log.text.length);
  assert.equal((await server.ask(file('empty.log'))).text, '');
  const lines = await server.ask(file('err.log'), { headers: { accept: 'application/json' } });
  assert.equal(lines.json.log.length, 120);
  assert.equal(lines.json.log[119], 'line 119\n');
});

test('a log that grows while it is sent keeps the length that was announced', async () => {
  writeFileSync(join(ws, 'grow.log'), 'x'.repeat(3_000_000));
  const asked = server.ask(file('grow.log'));
  for (let n = 0; n < 20; n++) appendFileSync(join(ws, 'grow.log'), 'y'.repeat(10_000));
  const { text, headers } = await asked;
  assert.equal(text.length, Number(headers['content-length']));
});

test('/dataset/file and /model/file give the bytes of anything in the workspace', async () => {
  for (const route of ['/dataset/file', '/model/file']) {
    const picture = await server.ask(`${route}?path=${encodeURIComponent('datasets/D0001/花 a/b c.png')}`);
    assert.equal(picture.headers['content-type'], 'image/png');
    assert.equal((await server.ask(`${route}?path=x.exe`)).headers['content-type'], 'application/octet-stream');
    assert.equal((await server.ask(`${route}?path=x.html`)).headers['content-type'], 'application/octet-stream');
    assert.equal((await server.ask(`${route}?path=${base}/data/p.JPG`)).json.code, 'forbidden_path');
  }
});

test('/project/task/train/file gives the last 50 lines with their ends', async () => {
  const { json } = await server.ask('/project/task/train/file?path=err.log');
  assert.equal(json.log.length, 50);
  assert.equal(json.log[0], 'line 70\n');
  writeFileSync(join(ws, 'open.log'), 'a\nb');
  assert.deepEqual((await server.ask('/project/task/train/file?path=open.log')).json.log, ['a\n', 'b']);
  assert.equal((await server.ask('/project/task/train/file?path=none.log')).json.code, 'not_found');
  writeFileSync(join(ws, 'long.log'), `${'x'.repeat(3_000_000)}\nlast\n`);
  assert.deepEqual((await server.ask('/project/task/train/file?path=long.log')).json.log, ['last\n']);
});

test('/system', async () => {
  const { json } = await server.ask('/system?type=machine_info');
  assert.equal(json.info.gpu_num, 0);
  assert.ok(Number.isInteger(json.info.cpu_num) && json.info.cpu_num >= 1);
  assert.equal(json.info.sysstr, 'Linux');
  assert.match(json.info.message, /no GPU \(no NVIDIA driver\)/);
  assert.equal('gpu_free_mem' in json.info, false);
  assert.deepEqual((await server.ask('/system?type=gpu_memory_size')).json, { status: 1, gpu_mem_infos: [] });
  for (const query of ['', '?type=', '?type=x', '?type=machine_info&type=x']) {
    assert.equal((await server.ask(`/system${query}`)).json.context.field, 'type');
  }
  stopped = 0;
  assert.deepEqual((await server.ask('/system', { method: 'DELETE' })).json, { status: 1 });
  assert.equal(stopped, 1);
});

test('the address of the curves has no scheme, and is refused before the first logged step', async () => {
  assert.equal((await server.ask('/project/task/vdl?tid=T0009')).json.code, 'not_found');
  assert.equal((await server.ask('/project/task/vdl?tid=T0001')).json.code, 'not_ready');
  const headers = { host: `localhost:${server.port}` };
  assert.equal(
    (await server.ask('/project/task/vdl?tid=T0002', { headers })).json.url,
    `localhost:${server.port}/board/T0002`,
  );
  const page = await server.ask('/board/T0002');
  assert.match(page.text, /board\.js/);
  assert.match(String(page.headers['content-security-policy']), /^default-src 'none'/);
  assert.equal((await server.ask('/board/T0009')).json.code, 'not_found');
  const { json } = await server.ask('/board/T0002/data');
  assert.deepEqual([json.status, json.train, json.eval], [1, { loss: [[1, 2]] }, { acc1: [[1, 0.5]] }]);
});

test('the PaddleX page gets its own origin as address, line ends kept, file untouched', async () => {
  const { text, headers, status } = await server.ask('/');
  assert.equal(status, 200);
  assert.equal(text, 'a\r\nvar str_srv_url = window.location.origin;\r\nb 0.0.0.0:8080\r\n');
  assert.equal(headers['cache-control'], 'no-cache');
  assert.match(String(headers['content-security-policy']), /'unsafe-eval'/);
  assert.equal(readFileSync(join(base, 'gui.html'), 'utf8'), GUI);
  writeFileSync(join(base, 'gui.html'), 'no address here, but longer than before: 1234567890 1234567890 1234567890');
  assert.match((await server.ask('/')).text, /^no address here/);
  assert.match((await server.ask('/home')).text, /home\.js/);
});

test('the address line at the end of a file, without line end, and below a prefix', () => {
  assert.equal(
    patchAddress(Buffer.from('x "0.0.0.0:8080"'), '').toString(),
    'var str_srv_url = window.location.origin;',
  );
  assert.equal(
    patchAddress(Buffer.from('é\n0.0.0.0:8080\né'), '/p').toString(),
    'é\nvar str_srv_url = window.location.origin + "/p";\né',
  );
});

test('page files come with their type and a tag for the cache', async () => {
  const first = await server.ask('/assets/home.js');
  assert.match(String(first.headers['content-type']), /^text\/javascript/);
  const again = await server.ask('/assets/home.js', { headers: { 'if-none-match': String(first.headers.etag) } });
  assert.equal(again.status, 304);
  assert.equal(again.text, '');
  for (const path of ['/assets/home.html', '/assets/..%2f..%2fpackage.json', '/assets/', '/assets/nothing.js']) {
    assert.equal((await server.ask(path)).status, 404, path);
  }
});
