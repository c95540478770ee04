import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { crc32, deflateRawSync, gzipSync } from 'node:zlib';
import { create, Header } from 'tar';
import { OarlockError } from '../errors.js';
import { type UnpackOptions, unpack } from './index.js';
import { entryParts } from './target.js';

const base = await mkdtemp(join(tmpdir(), 'oarlock-archive-'));
after(() => rm(base, { recursive: true, force: true }));
let made = 0;

interface Entry {
  path: string;
  type?: string;
  linkpath?: string;
  content?: Buffer | string;
  /** Declared size, when it is not the content's. */
  size?: number;
}

/** A tar with any names and types, as an attacker would write it. */
function tar(...entries: Entry[]): Buffer {
  const blocks: Buffer[] = [];
  for (const { path, type = 'File', linkpath, content = '', size } of entries) {
    const body = Buffer.from(content);
    const header = new Header({
      path,
      mode: 0o777,
      type: type as never,
      size: size ?? body.length,
      mtime: new Date(0),
      ...(linkpath === undefined ? {} : { linkpath }),
    });
    const block = Buffer.alloc(512);
    header.encode(block, 0);
    blocks.push(block, body, Buffer.alloc((512 - (body.length % 512)) % 512));
  }
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}

interface ZipItem {
  name: string | Buffer;
  content?: Buffer | string;
  stored?: boolean;
  mode?: number;
  flags?: number;
  /** Overrides of what the directory says. */
  says?: { size?: number; crc?: number; offset?: number; method?: number; packed?: number };
}

function zip(...items: ZipItem[]): Buffer {
  const locals: Buffer[] = [];
  const centrals: Buffer[] = [];
  let offset = 0;
  for (const { name, content = '', stored = false, mode = 0, flags = 0, says = {} } of items) {
    const body = Buffer.from(content);
    const packed = stored ? body : deflateRawSync(body);
    const raw = Buffer.isBuffer(name) ? name : Buffer.from(name);
    const local = Buffer.alloc(30);
    local.writeUInt32LE(0x04034b50, 0);
    local.writeUInt16LE(raw.length, 26);
    const central = Buffer.alloc(46);
    central.writeUInt32LE(0x02014b50, 0);
    central.writeUInt16LE(flags, 8);
    central.writeUInt16LE(says.method ?? (stored ? 0 : 8), 10);
    central.writeUInt32LE(says.crc ?? crc32(body), 16);
    central.writeUInt32LE(says.packed ?? (body.length === 0 ? 0 : packed.length), 20);
    central.writeUInt32LE(says.size ?? body.length, 24);
    central.writeUInt16LE(raw.length, 28);
    central.writeUInt32LE((mode << 16) >>> 0, 38);
    central.writeUInt32LE(says.offset ?? offset, 42);
    const parts = [local, raw, body.length === 0 ? Buffer.alloc(0) : packed];
    locals.push(...parts);
    centrals.push(central, raw);
    offset += parts.reduce((sum, part) => sum + part.length, 0);
  }
  const directory = Buffer.concat(centrals);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(items.length, 8);
  end.writeUInt16LE(items.length, 10);
  end.writeUInt32LE(directory.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...locals, directory, end]);
}

async function open(bytes: Buffer, options?: UnpackOptions): Promise<string> {
  const room = join(base, String(made++));
  await mkdir(room);
  const file = join(room, 'archive');
  await writeFile(file, bytes);
  await unpack(file, join(room, 'out'), options);
  return join(room, 'out');
}

/** It is refused, and nothing is left or written beside. */
async function refused(bytes: Buffer, text: RegExp, options?: UnpackOptions): Promise<void> {
  const room = String(made);
  await assert.rejects(open(bytes, options), (error) => {
    assert.ok(error instanceof OarlockError, String(error));
    assert.match(error.message, text);
    return true;
  });
  assert.deepEqual(await readdir(join(base, room)), ['archive'], String(text));
}

test('promise 4: names that lead out of the folder', async () => {
  for (const path of [
    '../evil',
    'a/../../evil',
    '/etc/evil',
    'C:\\evil',
    'c:/evil',
    '..\\evil',
    'a\\..\\..\\evil',
    '\\\\host\\share',
    'a\nb',
    'x'.repeat(300),
  ]) {
    if (Buffer.byteLength(path) < 100)
      await refused(tar({ path, content: 'x' }), /absolute|leads out|control|too long/);
    await refused(zip({ name: path, content: 'x' }), /absolute|leads out|control|too long/);
    assert.throws(() => entryParts(path), OarlockError);
  }
  await refused(zip({ name: `${'d/'.repeat(40)}x`, content: 'x' }), /too long/);
  assert.deepEqual(entryParts('./a//b/./c'), ['a', 'b', 'c']);
});

test('promise 4: links and devices, and what would be written through them', async () => {
  const inside = { path: 'a/link', type: 'SymbolicLink', linkpath: '/etc' };
  await refused(tar(inside, { path: 'a/link/passwd', content: 'x' }), /has a link/);
  await refused(tar({ path: 'hard', type: 'Link', linkpath: '/etc/passwd' }), /has a link/);
  for (const type of ['CharacterDevice', 'BlockDevice', 'FIFO'])
    await refused(tar({ path: 'dev', type }), /entry of type/);
  await refused(zip({ name: 'link', content: '/etc/passwd', mode: 0o120777 }), /link or device/);
});

test('promise 4: bombs by ratio, size, number and overlap', async () => {
  const zeros = Buffer.alloc(4 << 20);
  const limits = { ratioFrom: 1 << 20 };
  await refused(gzipSync(tar({ path: 'zeros', content: zeros })), /200 times its size/, { limits });
  await refused(zip({ name: 'zeros', content: zeros }), /200 times its size/, { limits });
  await refused(tar({ path: 'big', content: zeros }), /more than 1000000 bytes/, { limits: { bytes: 1_000_000 } });
  await refused(zip({ name: 'big', content: zeros, stored: true }), /more than 1000000 bytes/, {
    limits: { bytes: 1_000_000 },
  });
  const many = Array.from({ length: 50 }, (_, at) => ({ path: `f${at}`, name: `f${at}` }));
  await refused(tar(...many), /more than 20 entries/, { limits: { entries: 20 } });
  await refused(zip(...many), /more than 20 entries/, { limits: { entries: 20 } });
  const body = Buffer.from('the same bytes for every entry');
  await refused(
    zip({ name: 'a', content: body, stored: true }, { name: 'b', content: body, stored: true, says: { offset: 0 } }),
    /overlap/,
  );
  // The directory understates what the entry holds.
  await refused(zip({ name: 'liar', content: zeros, says: { size: 100 } }), /larger than it says/);
  await refused(gzipSync(gzipSync(tar({ path: 'a', content: 'x' }))), /damaged/);
});

test('damage of every kind', async () => {
  const good = tar({ path: 'a', content: Buffer.alloc(5000, 1) });
  await refused(Buffer.from('nothing of the kind'), /neither tar/);
  await refused(Buffer.alloc(0), /neither tar/);
  await refused(gzipSync(good).subarray(0, 30), /damaged/);
  await refused(Buffer.concat([gzipSync(good).subarray(0, 40), Buffer.alloc(40, 7)]), /damaged/);
  await refused(good.subarray(0, 2000), /damaged/);
  const flipped = Buffer.from(good);
  flipped[0] = 98;
  await refused(flipped, /damaged/);
  const zipped = zip({ name: 'a', content: 'hello hello hello' });
  await refused(zipped.subarray(0, -5), /damaged/);
  await refused(zip({ name: 'a', content: 'hello', says: { crc: 1 } }), /wrong checksum/);
  await refused(zip({ name: 'a', content: 'hello', says: { size: 99 } }), /wrong checksum/);
  await refused(zip({ name: 'a', content: 'hello', says: { offset: 3 } }), /damaged/);
  await refused(zip({ name: 'a', content: 'hello', says: { packed: 1 << 20 } }), /damaged/);
  await refused(zip({ name: 'a', content: 'hello', says: { method: 12 } }), /only deflate/);
  await refused(zip({ name: 'a', content: 'hello', flags: 1 }), /encrypted/);
  await refused(zip({ name: 'a', content: 'x' }, { name: 'a', content: 'y' }), /appears twice/);
  await refused(tar({ path: 'a', content: 'x' }, { path: 'a/b', content: 'y' }), /a file and a folder/);
});

test('the target must be new: a prepared link in it is no trap', async () => {
  const room = join(base, String(made++));
  await mkdir(join(room, 'elsewhere'), { recursive: true });
  await writeFile(join(room, 'archive'), tar({ path: 'evil', content: 'x' }));
  await symlink(join(room, 'elsewhere'), join(room, 'out'));
  await assert.rejects(unpack(join(room, 'archive'), join(room, 'out')), /EEXIST/);
  assert.deepEqual(await readdir(join(room, 'elsewhere')), []);
});

test('unpacking can be stopped', async () => {
  const controller = new AbortController();
  const content = Buffer.alloc(8 << 20, 'abc');
  await assert.rejects(
    open(tar({ path: 'a', content }, { path: 'b', content }), {
      signal: controller.signal,
      onBytes: () => controller.abort(new Error('stopped')),
    }),
    /stopped/,
  );
  assert.deepEqual(await readdir(join(base, String(made - 1))), ['archive']);
});

async function tree(folder: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isFile()) found[path.slice(folder.length + 1)] = (await readFile(path)).toString('latin1');
  }
  return found;
}

test('real archives: long, Chinese and GB18030 names, empty files, many blocks', async () => {
  const source = join(base, 'source');
  const long = `${'深/'.repeat(12)}${'n'.repeat(120)}.txt`;
  const big = Buffer.from(Array.from({ length: 300_000 }, (_, at) => (at * 7919) & 0xff));
  await mkdir(join(source, 'set', '玫瑰 a', ...'深'.repeat(12).split('')), { recursive: true });
  await writeFile(join(source, 'set', '玫瑰 a', '1.jpg'), big);
  await writeFile(join(source, 'set', '玫瑰 a', long), 'deep');
  await writeFile(join(source, 'set', 'empty'), '');
  for (const [gzip, portable] of [
    [true, true],
    [false, false],
  ] as const) {
    const file = join(base, `real${gzip}.tar`);
    await create({ cwd: source, gzip, portable, file }, ['set']);
    const seen: number[] = [];
    const out = await open(await readFile(file), { onBytes: (bytes) => seen.push(bytes) });
    assert.deepEqual(await tree(out), await tree(source));
    assert.ok((seen.at(-1) ?? 0) > big.length);
  }
  const chinese = Buffer.from([0xc3, 0xb5, 0xb9, 0xe5]); // 玫瑰 in GB18030
  const out = await open(
    zip(
      { name: 'set/' },
      { name: 'set/a b.txt', content: 'hello', flags: 0x800 },
      { name: Buffer.concat([Buffer.from('set\\'), chinese]), content: big, stored: true },
      { name: 'set/empty' },
    ),
  );
  assert.deepEqual(await tree(out), { 'set/a b.txt': 'hello', 'set/玫瑰': big.toString('latin1'), 'set/empty': '' });
});
