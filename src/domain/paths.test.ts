import assert from 'node:assert/strict';
import { linkSync, mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { OarlockError } from './errors.js';
import { isInside, PathGuard } from './paths.js';

let base: string;
let ws: string;
let data: string;
let guard: PathGuard;
const SECRET = 'the secret outside';

before(() => {
  base = mkdtempSync(join(tmpdir(), 'oarlock-paths-'));
  ws = join(base, 'ws');
  data = join(base, 'data');
  for (const folder of [
    'ws/datasets/D0001',
    'ws/.oarlock',
    'ws/d',
    'data/set/图片 a',
    'data/.ssh',
    'outside/sub',
    'ws_evil',
    'data_evil',
  ]) {
    mkdirSync(join(base, folder), { recursive: true });
  }
  writeFileSync(join(ws, 'datasets/D0001/a.png'), 'inside');
  writeFileSync(join(ws, 'datasets/D0001/%2e%2e'), 'inside');
  writeFileSync(join(ws, 'd/.success'), 'inside');
  writeFileSync(join(ws, '.oarlock/data.mdb'), SECRET);
  writeFileSync(join(data, 'set/图片 a/b.png'), 'inside');
  writeFileSync(join(data, '.ssh/id_rsa.txt'), SECRET);
  writeFileSync(join(data, '.netrc'), SECRET);
  for (const file of [
    'outside/secret.txt',
    'outside/sub/secret.txt',
    'ws_evil/secret.txt',
    'data_evil/secret.txt',
    'secret.txt',
  ]) {
    writeFileSync(join(base, file), SECRET);
  }
  symlinkSync(join(base, 'outside'), join(ws, 'link'));
  symlinkSync('../outside/secret.txt', join(ws, 'file-link.txt'));
  symlinkSync(join(ws, 'datasets'), join(ws, 'good-link'));
  symlinkSync(join(base, 'outside/new.txt'), join(ws, 'dangling'));
  symlinkSync(join(ws, 'loop'), join(ws, 'loop'));
  symlinkSync('/', join(ws, 'root'));
  symlinkSync('/proc/self', join(data, 'proc'));
  symlinkSync('file-link.txt', join(ws, 'chain.txt'));
  symlinkSync(join(ws, '.oarlock'), join(ws, 'state'));
  linkSync(join(base, 'outside/secret.txt'), join(base, 'outside/hard.txt'));
  guard = new PathGuard({ workspace: ws, data: [data] });
});
after(() => rmSync(base, { recursive: true, force: true }));

/** [payload, refusal]; `ws:`, `data:` and `base:` stand for the absolute folders. */
const ATTACKS: readonly (readonly [string, 'forbidden_path' | 'not_found' | 'invalid_argument'])[] = [
  ['../secret.txt', 'forbidden_path'],
  ['../../../../../../../../etc/passwd', 'forbidden_path'],
  ['datasets/../../secret.txt', 'forbidden_path'],
  ['datasets/D0001/../../../outside/secret.txt', 'forbidden_path'],
  ['./././../secret.txt', 'forbidden_path'],
  ['datasets//..//..//secret.txt', 'forbidden_path'],
  ['..\\secret.txt', 'forbidden_path'],
  ['..\\..\\..\\..\\etc\\passwd', 'forbidden_path'],
  ['datasets\\..\\..\\secret.txt', 'forbidden_path'],
  ['..\\/secret.txt', 'forbidden_path'],
  ['..', 'forbidden_path'],
  ['../', 'forbidden_path'],
  ['../ws_evil/secret.txt', 'forbidden_path'],
  ['ws:_evil/secret.txt', 'forbidden_path'],
  ['data:_evil/secret.txt', 'forbidden_path'],
  ['ws:/../ws_evil/secret.txt', 'forbidden_path'],
  ['ws:/../outside/secret.txt', 'forbidden_path'],
  ['data:/../outside/sub/secret.txt', 'forbidden_path'],
  ['base:/secret.txt', 'forbidden_path'],
  ['base:', 'forbidden_path'],
  ['/etc/passwd', 'forbidden_path'],
  ['//etc/passwd', 'forbidden_path'],
  ['///etc///passwd', 'forbidden_path'],
  ['\\etc\\passwd', 'forbidden_path'],
  ['\\\\server\\share\\secret.txt', 'forbidden_path'],
  ['//server/share/secret.txt', 'forbidden_path'],
  ['\\\\?\\C:\\Windows\\win.ini', 'forbidden_path'],
  ['/proc/self/environ', 'forbidden_path'],
  ['/proc/self/fd/0', 'forbidden_path'],
  ['/dev/zero', 'forbidden_path'],
  ['/', 'forbidden_path'],
  ['link/secret.txt', 'forbidden_path'],
  ['link/sub/../secret.txt', 'forbidden_path'],
  ['link/sub/secret.txt', 'forbidden_path'],
  ['ws:/link/secret.txt', 'forbidden_path'],
  ['file-link.txt', 'forbidden_path'],
  ['chain.txt', 'forbidden_path'],
  ['root/etc/passwd', 'forbidden_path'],
  ['data:/proc/environ', 'forbidden_path'],
  ['state/data.mdb', 'forbidden_path'],
  ['.oarlock/data.mdb', 'forbidden_path'],
  ['ws:/.oarlock/data.mdb', 'forbidden_path'],
  ['data:/.ssh/id_rsa.txt', 'forbidden_path'],
  ['data:/.netrc', 'forbidden_path'],
  ['data:/set/../.ssh/id_rsa.txt', 'forbidden_path'],
  ['datasets/D0001/a.png\0', 'invalid_argument'],
  ['\0', 'invalid_argument'],
  ['../secret.txt\0.png', 'invalid_argument'],
  ['datasets/\x01/a.png', 'invalid_argument'],
  ['datasets/D0001/a.png\n', 'invalid_argument'],
  ['a\x7f', 'invalid_argument'],
  ['', 'invalid_argument'],
  [`${'a/'.repeat(3000)}x`, 'invalid_argument'],
  ['x'.repeat(300), 'invalid_argument'],
  ['图'.repeat(100), 'invalid_argument'],
  // Spellings that are only names once HTTP has decoded them once.
  ['%2e%2e/secret.txt', 'not_found'],
  ['%252e%252e%252fsecret.txt', 'not_found'],
  ['..%2fsecret.txt', 'not_found'],
  ['..%c0%afsecret.txt', 'not_found'],
  ['．．/secret.txt', 'not_found'],
  ['‥/secret.txt', 'not_found'],
  ['.../secret.txt', 'not_found'],
  ['....//secret.txt', 'not_found'],
  ['file:///etc/passwd', 'not_found'],
  ['C:\\Windows\\win.ini', 'not_found'],
  ['~/secret.txt', 'not_found'],
  ['$HOME/secret.txt', 'not_found'],
  ['http://127.0.0.1/secret.txt', 'not_found'],
  ['datasets/D0001/a.png/b', 'not_found'],
  ['datasets/D0001/a.png/../a.png/x', 'not_found'],
  ['loop', 'not_found'],
  ['dangling', 'not_found'],
  ['datasets', 'invalid_argument'],
  ['.', 'invalid_argument'],
];

const spelled = (payload: string) =>
  payload
    .replace(/^ws:/, ws)
    .replace(/^data:/, data)
    .replace(/^base:/, base);

test(`promise 1: ${ATTACKS.length} payloads reach no file outside the roots`, async (t) => {
  assert.ok(ATTACKS.length >= 60);
  for (const [payload, code] of ATTACKS) {
    await t.test(JSON.stringify(payload).slice(0, 60), async () => {
      await assert.rejects(guard.open(spelled(payload)), (error: unknown) => {
        assert.ok(error instanceof OarlockError, String(error));
        assert.equal(error.code, code, error.message);
        return true;
      });
    });
  }
});

test('promise 1: neither numbers nor objects nor lists are paths', async () => {
  for (const value of [undefined, null, 7, {}, [], ['a'], true]) {
    await assert.rejects(guard.open(value), { code: 'invalid_argument' });
  }
});

test('promise 1: whatever is joined from dots, slashes and names, only files inside come back', async () => {
  const part = fc.constantFrom(
    '..',
    '.',
    '',
    'datasets',
    'D0001',
    'a.png',
    'link',
    'sub',
    'secret.txt',
    'root',
    'etc',
    'passwd',
    'ws',
    'state',
    '.oarlock',
    'data.mdb',
    'good-link',
    'chain.txt',
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(part, { minLength: 1, maxLength: 8 }),
      fc.constantFrom('/', '\\', '//'),
      fc.constantFrom('', '/', 'ws:/', 'data:/', 'base:/'),
      async (parts, separator, start) => {
        try {
          const { bytes, path } = await guard.readFile(spelled(start + parts.join(separator)), 1000);
          assert.equal(bytes.toString(), 'inside');
          assert.ok(isInside(path, ws) || isInside(path, data));
        } catch (error) {
          assert.ok(error instanceof OarlockError, String(error));
        }
      },
    ),
    { numRuns: 3000 },
  );
});

test('good paths open, however they are spelled', async () => {
  for (const path of [
    'datasets/D0001/a.png',
    'datasets\\D0001\\a.png',
    './datasets/./D0001//a.png',
    `${ws}/datasets/D0001/a.png`,
    `${ws}//datasets/D0001/a.png`,
    `${data}/set/图片 a/b.png`,
    'good-link/D0001/a.png',
    'datasets/D0001/%2e%2e',
    'd/.success',
  ]) {
    assert.equal((await guard.readFile(path, 100)).bytes.toString(), 'inside', path);
  }
  assert.equal((await guard.readFile('a.png', 100, { base: join(ws, 'datasets/D0001') })).bytes.toString(), 'inside');
});

test('`within: workspace` leaves data roots out', async () => {
  await assert.rejects(guard.open(`${data}/set/图片 a/b.png`, { within: 'workspace' }), { code: 'forbidden_path' });
  (await guard.open('datasets/D0001/a.png', { within: 'workspace' })).close();
});

test('a hard link inside a root is a file of that root', async () => {
  // Only somebody who may write there can have made it, and to that person the file was readable.
  linkSync(join(base, 'outside/hard.txt'), join(ws, 'hard.txt'));
  assert.equal((await guard.readFile('hard.txt', 100)).bytes.toString(), SECRET);
  unlinkSync(join(ws, 'hard.txt'));
});

test('promise 1: a folder swapped for a symlink between calls is caught on the opened file', async () => {
  const plain = join(ws, 'swap');
  const aside = join(ws, 'swap-aside');
  mkdirSync(plain);
  writeFileSync(join(plain, 'secret.txt'), 'inside');
  symlinkSync(join(base, 'outside'), aside);
  let stop = false;
  const swapping = (async () => {
    const third = join(ws, 'swap-third');
    while (!stop) {
      renameSync(plain, third);
      renameSync(aside, plain);
      await new Promise((resolve) => setImmediate(resolve));
      renameSync(plain, aside);
      renameSync(third, plain);
      await new Promise((resolve) => setImmediate(resolve));
    }
  })();
  let read = 0;
  let refused = 0;
  for (let n = 0; n < 2000; n++) {
    try {
      assert.equal((await guard.readFile('swap/secret.txt', 100)).bytes.toString(), 'inside');
      read++;
    } catch (error) {
      assert.ok(error instanceof OarlockError, String(error));
      refused++;
    }
  }
  stop = true;
  await swapping;
  assert.ok(read > 0 && refused > 0, `${read} read, ${refused} refused`);
});

test('new paths are decided by what exists of them', async () => {
  assert.equal(await guard.resolveNew('out/model'), join(ws, 'out/model'));
  assert.equal(await guard.resolveNew(`${data}/export/../models/m`), join(data, 'models/m'));
  assert.equal(await guard.resolveNew('good-link/new'), join(ws, 'datasets/new'));
  for (const path of [
    'link/new',
    'dangling',
    'dangling/x',
    '../x',
    '.oarlock/x',
    'state/x',
    'root/tmp/x',
    `${ws}_evil/x`,
    '/tmp/x',
  ]) {
    await assert.rejects(guard.resolveNew(spelled(path)), { code: 'forbidden_path' }, path);
  }
  await assert.rejects(guard.resolveNew('datasets/D0001/a.png/x'), { code: 'not_found' });
});

test('folders', async () => {
  assert.equal(await guard.resolveFolder(`${data}/set`), join(data, 'set'));
  await assert.rejects(guard.resolveFolder('datasets/D0001/a.png', { field: 'path' }), /must be a folder/);
  await assert.rejects(guard.resolveFolder('nowhere'), { code: 'not_found' });
});

test('large files are refused by size, and pipes do not block', async () => {
  await assert.rejects(guard.readFile('datasets/D0001/a.png', 3), { code: 'resource_exhausted', retryable: false });
  const { execFileSync } = await import('node:child_process');
  execFileSync('mkfifo', [join(ws, 'pipe')]);
  await assert.rejects(guard.open('pipe'), { code: 'invalid_argument' });
});

test('messages name what the client sent and nothing of the server', async () => {
  await assert.rejects(guard.open('link/secret.txt'), (error: OarlockError) => {
    assert.ok(!JSON.stringify([error.message, error.context, error.hint]).includes(base));
    return true;
  });
});

test('segments, not prefixes', () => {
  assert.ok(isInside('/a/b', '/a'));
  assert.ok(isInside('/a', '/a'));
  assert.ok(isInside('/a', '/'));
  assert.ok(!isInside('/ab', '/a'));
  assert.ok(!isInside('/', '/a'));
});
