import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { temporaryName, writeFileAtomic } from './atomic-file.js';

const base = await mkdtemp(join(tmpdir(), 'oarlock-atomic-'));
after(() => rm(base, { recursive: true, force: true }));

test('a write that fails leaves the old content and nothing else', async () => {
  const path = join(base, 'failing');
  await mkdir(path); // a folder cannot be replaced by a file
  await assert.rejects(writeFileAtomic(path, 'new'), /EISDIR|ENOTEMPTY|EEXIST/);
  await assert.rejects(writeFileAtomic(join(base, 'absent', 'x'), 'new'), /ENOENT/);
  assert.deepEqual(await readdir(base), ['failing']);
});

test('promise 13: readers see the old content or the new, whole, whoever writes at the same time', async () => {
  const path = join(base, '状态.json');
  const texts = Array.from({ length: 20 }, (_, at) => String(at % 10).repeat(200_000));
  await writeFile(path, texts[0] as string);
  let writing = true;
  const reader = (async () => {
    while (writing) {
      const seen = await readFile(path, 'utf8');
      assert.ok(seen.length === 200_000 && new Set(seen).size === 1, 'a torn file');
    }
  })();
  await Promise.all(texts.map((text) => writeFileAtomic(path, text)));
  writing = false;
  await reader;
  assert.deepEqual((await readdir(base)).sort(), ['failing', '状态.json'].sort());
  assert.match(temporaryName(path), /\/\.状态\.json\.\d+\.[0-9a-f]{12}\.tmp$/);
});
