/** Datasets of all types over HTTP: import, split, details, previews, and what is refused. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { png } from './lib/pictures.js';
import { type Json, TestServer } from './lib/server.js';

let server: TestServer;

before(async () => {
  server = await TestServer.start();
});
after(() => server.remove());

function put(set: string, name: string, content: string | Buffer): void {
  const path = join(server.folder, set, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
}

/** An RGB picture with a gradient. */
function picture(width: number, height: number): Buffer {
  const pixels = new Uint8Array(width * height * 3);
  for (let i = 0; i < pixels.length; i += 1) pixels[i] = 60 + ((i * 7) % 120);
  return png(width, height, 3, pixels);
}

/** Class ids as grey levels. */
function labelMap(width: number, height: number, id: (x: number, y: number) => number): Buffer {
  const pixels = new Uint8Array(width * height).map((_, i) => id(i % width, Math.floor(i / width)));
  return png(width, height, 1, pixels);
}

/** Creates a dataset, imports the folder and returns it when the import has ended. */
async function imported(dataset_type: string, set: string, more: Json = {}): Promise<Json & { did: string }> {
  const { did } = await server.ok('POST', '/dataset', { name: set, desc: '', dataset_type });
  return { did, ...(await again(did, set, more)) };
}

async function again(did: string, set: string, more: Json = {}): Promise<Json> {
  await server.ok('PUT', '/dataset', { did, path: join(server.folder, set), ...more });
  return server.until(60, 'GET', '/dataset', { did }, (a) => ![1, 3].includes(a.dataset_status), 20);
}

async function details(did: string): Promise<Json> {
  return (await server.ok('GET', '/dataset/details', { did })).details;
}

/** Every label is a key of every map, and the three lists hold each picture once. */
function complete(found: Json): void {
  for (const map of ['label_info', 'class_train_file_list', 'class_val_file_list', 'class_test_file_list']) {
    for (const label of found.labels) assert.ok(Array.isArray(found[map][label]), `${map} has ${label}`);
  }
  const listed = [...found.train_files, ...found.val_files, ...found.test_files];
  assert.deepEqual(listed.sort(), Object.keys(found.file_info).sort());
}

/** Width and height of the PNG in an answer of `/file`. */
async function preview(did: string, path: string, more: Json = {}): Promise<[number, number, Buffer]> {
  const { img_data } = await server.ok('GET', '/file', { did, path, ...more });
  const bytes = Buffer.from(img_data, 'base64');
  assert.equal(bytes.subarray(1, 4).toString(), 'PNG');
  return [bytes.readUInt32BE(16), bytes.readUInt32BE(20), bytes];
}

describe('segmentation', { concurrency: false }, () => {
  let did = '';

  it('imports pictures with label maps and splits them', async () => {
    for (let i = 0; i < 10; i += 1) {
      put('streets', `JPEGImages/街 ${i}.png`, picture(48, 32));
      put(
        'streets',
        `Annotations/街 ${i}.png`,
        labelMap(48, 32, (x, y) => (y < 4 ? 255 : x < 20 ? 1 : i % 3)),
      );
    }
    const done = await imported('segmentation', 'streets');
    did = done.did;
    assert.equal(done.dataset_status, 4, JSON.stringify(done));
    let found = await details(did);
    assert.deepEqual(found.labels, ['0', '1', '2']);
    assert.equal(found.file_info['JPEGImages/街 3.png'], 'Annotations/街 3.png');
    assert.deepEqual(found.train_files, []);
    await server.ok('PUT', '/dataset/split', { did, val_split: 0.2, test_split: 0.1, seed: 3 });
    found = await details(did);
    complete(found);
    assert.deepEqual([found.train_files.length, found.val_files.length, found.test_files.length], [7, 2, 1]);
    const { attr } = await server.ok('GET', '/dataset', { did });
    const list = readFileSync(join(attr.path, 'train_list.txt'), 'utf8').trimEnd().split('\n');
    assert.equal(list.length, 7);
    assert.equal(list[0], `${found.train_files[0]} ${found.file_info[found.train_files[0]]}`);
    assert.equal(readFileSync(join(attr.path, 'labels.txt'), 'utf8'), '0\n1\n2\n');
    const first = found.val_files;
    await server.ok('PUT', '/dataset/split', { did, val_split: 0.3, test_split: 0, seed: 4 });
    found = await details(did);
    complete(found);
    assert.deepEqual([found.train_files.length, found.val_files.length, found.test_files.length], [7, 3, 0]);
    assert.notDeepEqual(found.val_files, first);
    await server.fails('invalid_argument', 'PUT', '/dataset/split', { did, val_split: 0.05, test_split: 0 });
  });

  it('shows them blended', async () => {
    const { attr } = await server.ok('GET', '/dataset', { did });
    const [width, height, bytes] = await preview(did, `${attr.path}/JPEGImages/街 3.png`);
    assert.deepEqual([width, height], [48, 32]);
    assert.deepEqual((await preview(did, 'JPEGImages/街 3.png'))[2], bytes);
    const [wide] = await preview(did, 'JPEGImages/街 3.png', { legend: true });
    assert.ok(wide > 48);
    await server.fails('not_found', 'GET', '/file', { did, path: 'JPEGImages/none.png' });
    const plain = await server.ok('GET', '/file', { path: `${attr.path}/JPEGImages/街 3.png` });
    assert.deepEqual(Buffer.from(plain.img_data, 'base64'), picture(48, 32));
  });

  it('binds to a project', async () => {
    const { pid } = await server.ok('POST', '/project', { name: 's', desc: '', project_type: 'segmentation' });
    await server.ok('PUT', '/workspace', { struct: 'project', id: pid, attr_dict: { did } });
  });

  it('names bad files, and imports when they are mended', async () => {
    put('bad', 'labels.txt', 'road\ncar\n');
    put('bad', 'JPEGImages/a.png', picture(8, 8));
    put(
      'bad',
      'Annotations/a.png',
      labelMap(8, 8, (x) => x % 3),
    );
    put('bad', 'JPEGImages/b.png', picture(8, 8));
    put(
      'bad',
      'Annotations/b.png',
      labelMap(8, 9, () => 0),
    );
    put('bad', 'JPEGImages/c.png', picture(8, 8));
    const done = await imported('segmentation', 'bad');
    assert.equal(done.dataset_status, 2);
    assert.match(done.message, /Annotations\/a\.png: it holds class ids that labels\.txt does not name: 2/);
    assert.match(done.message, /JPEGImages\/b\.png: it is 8×8, but its label map Annotations\/b\.png is 8×9/);
    assert.match(done.message, /JPEGImages\/c\.png: its annotation Annotations\/c\.png is missing/);
    await server.fails('conflict', 'PUT', '/dataset/split', { did: done.did, val_split: 0.5, test_split: 0 });
    await server.fails('not_ready', 'GET', '/file', { did: done.did, path: 'JPEGImages/a.png' });
    put('bad', 'labels.txt', 'road\ncar\nbus\n');
    put(
      'bad',
      'Annotations/b.png',
      labelMap(8, 8, () => 1),
    );
    put(
      'bad',
      'Annotations/c.png',
      labelMap(8, 8, () => 1),
    );
    assert.equal((await again(done.did, 'bad')).dataset_status, 4);
    assert.deepEqual((await details(done.did)).labels, ['road', 'car', 'bus']);
  });

  it('takes remote sensing pictures with any number of channels', async () => {
    const array = (channels: number): Buffer => {
      const shape = `(8, 10, ${channels})`;
      const header = `${`{'descr': '<u2', 'fortran_order': False, 'shape': ${shape}, }`.padEnd(117)}\n`;
      const start = Buffer.from('\x93NUMPY\x01\0\0\0', 'latin1');
      start.writeUInt16LE(header.length, 8);
      const data = Buffer.from(new Uint16Array(80 * channels).map((_, i) => (i * 37) % 4001).buffer);
      return Buffer.concat([start, Buffer.from(header), data]);
    };
    for (const name of ['a', 'b', 'c', 'd']) {
      put('fields', `JPEGImages/${name}.npy`, array(6));
      put(
        'fields',
        `Annotations/${name}.png`,
        labelMap(10, 8, (x) => (x < 5 ? 0 : 1)),
      );
    }
    const done = await imported('remote_segmentation', 'fields');
    assert.equal(done.dataset_status, 4, JSON.stringify(done));
    assert.deepEqual([done.attr.type, done.attr.remote], ['segmentation', true]);
    await server.ok('PUT', '/dataset/split', { did: done.did, val_split: 0.25, test_split: 0 });
    complete(await details(done.did));
    const numbers = JSON.parse(readFileSync(join(done.attr.path, 'channels.json'), 'utf8'));
    assert.equal(numbers.channels, 6);
    assert.equal(numbers.mean.length, 6);
    const [width, height, bytes] = await preview(done.did, 'JPEGImages/a.npy');
    assert.deepEqual([width, height], [10, 8]);
    const [, , other] = await preview(done.did, 'JPEGImages/a.npy', { channels: [5, 4, 3] });
    assert.notDeepEqual(other, bytes);
    put('fields', 'JPEGImages/b.npy', array(4));
    const failed = await again(done.did, 'fields');
    assert.match(failed.message, /JPEGImages\/b\.npy: it has 4 channels, most pictures have 6/);
  });
});
