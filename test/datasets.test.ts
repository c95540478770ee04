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

const xml = (width: number, height: number, objects: [string, number, number, number, number][]): string =>
  `<annotation><size><width>${width}</width><height>${height}</height><depth>3</depth></size>${objects
    .map(
      ([name, x1, y1, x2, y2]) =>
        `<object><name>${name}</name><bndbox><xmin>${x1}</xmin><ymin>${y1}</ymin><xmax>${x2}</xmax><ymax>${y2}</ymax></bndbox></object>`,
    )
    .join('')}</annotation>`;

describe('detection', { concurrency: false }, () => {
  let did = '';

  it('imports Pascal VOC sets, splits and shows them', async () => {
    for (let i = 0; i < 8; i += 1) {
      put('bolts', `JPEGImages/b${i}.png`, picture(800, 300));
      put(
        'bolts',
        `Annotations/b${i}.xml`,
        xml(800, 300, i % 2 ? [['螺丝', 10, 60, 300, 250]] : [['nut', 400, 80, 700, 280]]),
      );
    }
    put('bolts', 'JPEGImages/none.png', picture(20, 20));
    put('bolts', 'Annotations/none.xml', xml(20, 20, []));
    const done = await imported('detection', 'bolts');
    did = done.did;
    assert.equal(done.dataset_status, 4, JSON.stringify(done));
    assert.match(done.message, /1 pictures have no objects/);
    await server.ok('PUT', '/dataset/split', { did, val_split: 0.25, test_split: 0.25, seed: 1 });
    const found = await details(did);
    complete(found);
    assert.deepEqual(found.labels, ['nut', '螺丝']);
    assert.equal(found.file_info['JPEGImages/b1.png'], 'Annotations/b1.xml');
    assert.deepEqual([found.train_files.length, found.val_files.length, found.test_files.length], [5, 2, 2]);
    const [width, height] = await preview(did, 'JPEGImages/b1.png');
    assert.deepEqual([width, height], [580, 218]);
    assert.deepEqual((await preview(did, 'none.png')).slice(0, 2), [20, 20]);
    const { attr } = await server.ok('GET', '/dataset', { did });
    const raw = await server.call('GET', '/file', { path: `${attr.path}/Annotations/none.json` });
    assert.equal(raw.status, -1);
  });

  it('names the file and the object that is wrong', async () => {
    put('bolts', 'Annotations/b1.xml', '<annotation><object><name>x</name>');
    put('bolts', 'Annotations/b2.xml', xml(800, 300, [['', 1, 1, 9, 9]]));
    const failed = await again(did, 'bolts');
    assert.equal(failed.dataset_status, 2);
    assert.match(failed.message, /Annotations\/b1\.xml: the XML is not well formed/);
    assert.match(failed.message, /Annotations\/b2\.xml: object 1 has no name/);
  });
});

describe('instance segmentation', { concurrency: false }, () => {
  let did = '';
  const square = (x: number, y: number, side: number) => [x, y, x + side, y, x + side, y + side, x, y + side];
  const coco = (count: number, category = 2): Json => ({
    images: Array.from({ length: count }, (_, i) => ({ id: i, file_name: `图${i}.png`, width: 60, height: 50 })),
    categories: [
      { id: 2, name: 'zebra' },
      { id: 1, name: 'ant' },
    ],
    annotations: Array.from({ length: count }, (_, i) => ({
      id: i,
      image_id: i,
      category_id: i % 2 ? 1 : category,
      bbox: [10, 10, 20, 20],
      area: 400,
      iscrowd: 0,
      segmentation: [square(10, 10, 20)],
    })),
  });

  it('imports MSCOCO sets, splits and shows them', async () => {
    for (let i = 0; i < 6; i += 1) put('zoo', `JPEGImages/图${i}.png`, picture(60, 50));
    put('zoo', 'annotations.json', JSON.stringify(coco(6)));
    const done = await imported('instance_segmentation', 'zoo');
    did = done.did;
    assert.equal(done.dataset_status, 4, JSON.stringify(done));
    await server.ok('PUT', '/dataset/split', { did, val_split: 0.34, test_split: 0, seed: 2 });
    const found = await details(did);
    complete(found);
    assert.deepEqual(found.labels, ['ant', 'zebra']);
    const { attr } = await server.ok('GET', '/dataset', { did });
    const read = (name: string): Json => JSON.parse(readFileSync(join(attr.path, name), 'utf8'));
    assert.deepEqual(
      [read('train.json'), read('val.json'), read('test.json')].map((part) => part.images.length),
      [4, 2, 0],
    );
    assert.deepEqual(read('val.json').categories, coco(6).categories);
    assert.equal(found.file_info['JPEGImages/图0.png'], 'Annotations/图0.npy');
    const npy = await server.call('GET', '/dataset/npy', { path: `${attr.path}/Annotations/图0.npy` });
    assert.deepEqual(npy, {
      h: 50,
      w: 60,
      gt_class: ['zebra'],
      gt_bbox: [[10, 10, 29, 29]],
      gt_poly: [[square(10, 10, 20)]],
    });
    const [width, height, bytes] = await preview(did, 'JPEGImages/图0.png');
    assert.deepEqual([width, height], [60, 50]);
    assert.notDeepEqual((await preview(did, 'JPEGImages/图1.png'))[2], bytes);
    await server.fails('forbidden_path', 'GET', '/dataset/npy', { path: '/etc/passwd' });
    await server.fails('unsupported', 'GET', '/dataset/npy', { path: `${attr.path}/annotations.json` });
  });

  it('names the entry that is wrong', async () => {
    put('zoo', 'annotations.json', JSON.stringify(coco(7, 9)));
    const failed = await again(did, 'zoo');
    assert.equal(failed.dataset_status, 2);
    assert.match(
      failed.message,
      /annotations\.json: annotation 0 of image 0 \(图0\.png\): its category 9 is not in categories/,
    );
    assert.match(failed.message, /image 6: JPEGImages\/图6\.png is not there/);
  });
});

describe('annotations of other tools', { concurrency: false }, () => {
  it('are recognised and converted', async () => {
    const shapes = [
      {
        label: '猫',
        shape_type: 'rectangle',
        points: [
          [5, 5],
          [25, 25],
        ],
      },
      {
        label: 'dog',
        shape_type: 'polygon',
        points: [
          [30, 5],
          [55, 5],
          [40, 40],
        ],
      },
    ];
    for (const name of ['a', 'b', 'c']) {
      put('labelled', `${name}.png`, picture(60, 50));
      put('labelled', `${name}.json`, JSON.stringify({ shapes, imagePath: `..\\${name}.png`, imageHeight: 50 }));
    }
    for (const [type, labels] of [
      ['detection', ['猫']],
      ['segmentation', ['_background_', '猫', 'dog']],
      ['instance_segmentation', ['dog', '猫']],
    ] as const) {
      const done = await imported(type, 'labelled');
      assert.equal(done.dataset_status, 4, JSON.stringify(done));
      assert.match(done.message, /converted from labelme/);
      await server.ok('PUT', '/dataset/split', { did: done.did, val_split: 0.34, test_split: 0 });
      const found = await details(done.did);
      complete(found);
      assert.deepEqual(found.labels, labels);
      await preview(done.did, 'JPEGImages/a.png');
    }
  });

  it('are what `format` says', async () => {
    const wrong = await imported('detection', 'labelled', { format: 'easydata' });
    assert.equal(wrong.dataset_status, 2);
    assert.match(wrong.message, /a\.json: it holds no list of shapes/);
    const right = await again(wrong.did, 'labelled', { format: 'labelme' });
    assert.equal(right.dataset_status, 4);
    const path = join(server.folder, 'labelled');
    const field = await server.fails('invalid_argument', 'PUT', '/dataset', { did: wrong.did, path, format: 'x' });
    assert.equal(field.context.field, 'format');
    const { did } = await server.ok('POST', '/dataset', { name: 'c', desc: '', dataset_type: 'classification' });
    await server.fails('invalid_argument', 'PUT', '/dataset', { did, path, format: 'labelme' });
  });
});
