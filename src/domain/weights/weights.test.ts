import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, test } from 'node:test';
import { OarlockError } from '../errors.js';
import type { Mirror } from '../mirror.js';
import { findModel } from '../params/models.js';
import { PathGuard } from '../paths.js';
import { guessModel } from './guess.js';
import { inspectWeights } from './inspect.js';
import { defaultWeightsFolder, Weights } from './store.js';

const root = await mkdtemp(join(tmpdir(), 'oarlock-weights-'));
after(() => rm(root, { recursive: true, force: true }));
const folder = join(root, 'cache');
const pretrain = join(root, 'ws', 'pretrain');
beforeEach(async () => {
  await rm(folder, { recursive: true, force: true });
  await rm(pretrain, { recursive: true, force: true });
  await mkdir(pretrain, { recursive: true });
});

const fails = (code: string, text: RegExp, hint?: RegExp) => (error: unknown) => {
  assert.ok(error instanceof OarlockError, String(error));
  assert.equal(error.code, code, error.message);
  assert.match(error.message, text);
  if (hint) assert.match(error.hint ?? '', hint);
  return true;
};

/** One float32 tensor of two values, as the safetensors format lays it out. */
function safetensors(values = [1, 2]): Buffer {
  const header = Buffer.from(
    JSON.stringify({ w: { dtype: 'F32', shape: [values.length], data_offsets: [0, 4 * values.length] } }),
  );
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([length, header, Buffer.from(new Float32Array(values).buffer)]);
}

/** A zip with one stored entry: what the format check looks at. */
function zip(name: string): Buffer {
  const local = Buffer.alloc(30);
  local.writeUInt32LE(0x04034b50, 0);
  local.writeUInt16LE(name.length, 26);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  return Buffer.concat([local, Buffer.from(name), Buffer.alloc(64), end]);
}

/** pickle.dumps({'a': 1, 'b': 2, 'cc': 3}, 2) */
const PADDLE = Buffer.from(
  '80027d71002858010000006171014b0158010000006271024b0258020000006363710 34b03752e'.replace(' ', ''),
  'hex',
);

async function put(path: string, bytes: Buffer | string): Promise<string> {
  const full = join(root, path);
  await mkdir(join(full, '..'), { recursive: true });
  await writeFile(full, bytes);
  return full;
}

test('files that are no weights are refused with what they are instead', async () => {
  const table: [Buffer | string, RegExp][] = [
    ['', /it is empty/],
    ['short', /only 5 bytes/],
    ['<!DOCTYPE html><html>404 not found</html>', /web page/],
    [Buffer.alloc(64, 7), /none of the known formats/],
    [safetensors().subarray(0, -1), /truncated/],
    [
      Buffer.concat([Buffer.from([255, 255, 255, 255, 0, 0, 0, 0]), Buffer.from('{"w": 1}        ')]),
      /truncated or damaged/,
    ],
    [Buffer.concat([Buffer.from([8, 0, 0, 0, 0, 0, 0, 0]), Buffer.from('{"w": 1,        ')]), /not valid JSON/],
    [Buffer.concat([Buffer.from([8, 0, 0, 0, 0, 0, 0, 0]), Buffer.from('{      }        ')]), /holds no tensors/],
    [zip('word/document.xml'), /not one that torch.save wrote/],
    [zip('archive/data.pkl').subarray(0, -22), /truncated/],
    [Buffer.concat([zip('net/data.pkl'), Buffer.from('constants.pkl')]), /TorchScript/],
    [PADDLE.subarray(0, -1), /truncated/],
  ];
  for (const [bytes, message] of table) {
    const file = await put('bad/file', bytes);
    await assert.rejects(inspectWeights(file), fails('invalid_argument', message), String(message));
  }
});

test('the three formats are known by their content, whatever the name', async () => {
  assert.deepEqual(await inspectWeights(await put('a/x.bin', safetensors())), {
    format: 'safetensors',
    tensors: 1,
    bytes: safetensors().length,
  });
  assert.equal((await inspectWeights(await put('a/y', zip('resnet18/data.pkl')))).format, 'pth');
  assert.equal((await inspectWeights(await put('a/z', PADDLE))).format, 'pdparams');
  const before16 = Buffer.from('80028a0a6cfc9c46f9206aa850192e00000000', 'hex');
  assert.equal((await inspectWeights(await put('a/old', before16))).format, 'pth');
});

test('weights that are not there: the error says where to put which file', async () => {
  const weights = new Weights({ folder, pretrain });
  await assert.rejects(
    weights.resolve({ type: 'classification', model: 'ResNet50_vd', wanted: 'IMAGENET' }),
    fails(
      'not_found',
      /IMAGENET of ResNet50_vd are not on this machine/,
      /ResNet50_vd_IMAGENET\/model\.safetensors.*npm run weights -- add FILE --model ResNet50_vd --name IMAGENET/,
    ),
  );
  await assert.rejects(
    weights.resolve({ type: 'detection', model: 'YOLOv3', backbone: 'DarkNet53', wanted: 'COCO' }),
    fails('not_found', /YOLOv3 with DarkNet53/, /--backbone DarkNet53/),
  );
  assert.deepEqual(await weights.list(), []);
});

test('promise 1: paths are resolved only inside the allowed roots and must hold weights', async () => {
  const outside = await put('outside/model.pdparams', PADDLE);
  const data = join(root, 'data');
  await put('data/模型/model.pdparams', PADDLE);
  await put('data/notes/readme.md', 'x');
  await rm(join(data, 'link.pdparams'), { force: true });
  await symlink(outside, join(data, 'link.pdparams'));
  await rm(join(data, 'trap'), { recursive: true, force: true });
  await mkdir(join(data, 'trap'));
  await symlink(outside, join(data, 'trap', 'model.pdparams'));
  const weights = new Weights({
    folder,
    pretrain,
    guard: new PathGuard({ workspace: join(root, 'ws'), data: [data] }),
  });
  const resolve = (wanted: string) => weights.resolve({ type: 'classification', model: 'ResNet18', wanted });
  for (const path of [outside, join(data, 'link.pdparams'), join(data, 'trap'), '../outside/model.pdparams']) {
    await assert.rejects(resolve(path), fails('forbidden_path', /outside the folders/), path);
  }
  await assert.rejects(resolve(join(data, 'none.pth')), fails('not_found', /no file or folder/));
  await assert.rejects(resolve(join(data, 'notes')), fails('not_found', /holds no weights/, /model\.safetensors/));
  await assert.rejects(resolve(join(data, 'notes/readme.md')), fails('invalid_argument', /no weights file/));
  await assert.rejects(
    new Weights({ folder }).resolve({ type: 'classification', model: 'ResNet18', wanted: './x.pth' }),
    fails('invalid_argument', /not a path/),
  );
  assert.equal(await resolve(join(data, '模型')), join(data, '模型', 'model.pdparams'));
  assert.equal(await resolve(join(data, '模型', 'model.pdparams')), join(data, '模型', 'model.pdparams'));
});

test('the workspace goes before the shared folder; folders, flat files and publishers’ names are found', async () => {
  const weights = new Weights({ folder, pretrain });
  const resolve = (model: string, wanted = 'imagenet') => weights.resolve({ type: 'classification', model, wanted });
  const flat = await put('cache/ResNet18_IMAGENET.pth', zip('r/data.pkl'));
  assert.equal(await resolve('ResNet18'), flat);
  const own = await put('ws/pretrain/ResNet18_IMAGENET/ResNet18_pretrained.pdparams', PADDLE);
  assert.equal(await resolve('ResNet18'), own);
  const better = await put('ws/pretrain/ResNet18_IMAGENET/model.safetensors', safetensors());
  await put('ws/pretrain/ResNet18_IMAGENET/model.pdopt', PADDLE);
  assert.equal(await resolve('ResNet18'), better);
  assert.equal(await resolve('ResNet18', 'COCO'), better, 'an unknown name means the first known one');
  await put('ws/pretrain/PM0001/model.pdparams', PADDLE);
  assert.deepEqual([...(await weights.keys())], ['ResNet18_IMAGENET']);
});

test('an added file is found by name, replaces its predecessor and can be verified', async () => {
  const weights = new Weights({ folder, pretrain });
  const info = findModel('classification', 'MobileNetV2');
  assert.equal(weights.has('MobileNetV2_IMAGENET'), false);
  assert.equal(await weights.find('MobileNetV2_IMAGENET'), undefined);
  await assert.rejects(weights.add(join(root, 'none'), info, undefined, 'IMAGENET'), fails('not_found', /no file/));
  await assert.rejects(
    weights.add(await put('bad/page', '<html>................</html>'), info, undefined, 'IMAGENET'),
    fails('invalid_argument', /web page/),
  );
  assert.deepEqual(await weights.list(), []);
  await weights.add(await put('in/a.pdparams', PADDLE), info, undefined, 'IMAGENET');
  const entry = await weights.add(await put('in/b.bin', safetensors()), info, undefined, 'IMAGENET');
  assert.deepEqual(await weights.list(), [entry]);
  assert.deepEqual((await readdir(join(folder, entry.key))).sort(), ['model.safetensors', 'model.safetensors.sha256']);
  assert.deepEqual(await readdir(folder), [entry.key], 'no temporary folders left');
  assert.deepEqual(await readFile(entry.path), safetensors());
  assert.equal(await weights.resolve({ type: 'classification', model: 'MobileNetV2', wanted: 'IMAGENET' }), entry.path);
  assert.equal(weights.has(entry.key), true);
  assert.equal(await weights.find(entry.key), entry.path);
  assert.equal(await weights.verify(entry), 'ok');
  await writeFile(entry.path, safetensors([1, 3]));
  assert.equal(await weights.verify(entry), 'changed');
  await truncate(entry.path, 66);
  await assert.rejects(weights.verify(entry), fails('invalid_argument', /truncated/));
});

test('a configured mirror is asked only for what is not here, and its file is checked', async () => {
  const calls: string[] = [];
  const sum = createHash('sha256').update(safetensors()).digest('hex');
  const mirror = {
    sums: async () =>
      new Map([
        ['ResNet34_IMAGENET.safetensors', sum],
        ['ResNet18_IMAGENET.pth', sum],
      ]),
    download: async (name: string, dest: string) => {
      calls.push(name);
      await writeFile(dest, name.endsWith('.pth') ? '<html>not what it says</html>' : safetensors());
    },
  } as unknown as Mirror;
  const weights = new Weights({ folder, pretrain, mirror });
  const resolve = (model: string) => weights.resolve({ type: 'classification', model, wanted: 'IMAGENET' });
  await assert.rejects(resolve('ResNet50'), fails('not_found', /mirror has no weights ResNet50_IMAGENET/));
  await assert.rejects(resolve('ResNet18'), fails('invalid_argument', /web page/));
  assert.deepEqual(await readdir(folder), [], 'nothing of the wrong file is left');
  assert.equal(await resolve('ResNet34'), join(folder, 'ResNet34_IMAGENET', 'model.safetensors'));
  await resolve('ResNet34');
  assert.deepEqual(calls, ['ResNet18_IMAGENET.pth', 'ResNet34_IMAGENET.safetensors']);
});

test('published file names tell the model', () => {
  const table: [string, string | undefined][] = [
    ['resnet50-0676ba61.pth', 'ResNet50'],
    ['/x/mobilenet_v2-b0353104.pth', 'MobileNetV2'],
    ['densenet121-a639ec97.pth', 'DenseNet121'],
    ['shufflenetv2_x1-5666bf0f80.pth', 'ShuffleNetV2'],
    ['ResNet50_vd_ssld_pretrained.pdparams', 'ResNet50_vd_ssld'],
    ['MobileNetV3_large_x1_0_ssld_pretrained.pdparams', 'MobileNetV3_large_ssld'],
    ['HRNet_W18_C_pretrained.pdparams', 'HRNet_W18_C'],
    ['ResNet18_IMAGENET.safetensors', 'ResNet18'],
    ['model.pdparams', undefined],
  ];
  for (const [file, model] of table) assert.equal(guessModel(file)?.name, model, file);
});

test('the shared folder follows the environment', () => {
  assert.equal(defaultWeightsFolder({ OARLOCK_WEIGHTS_DIR: '/w' }), '/w');
  assert.equal(defaultWeightsFolder({ OARLOCK_CACHE: '/c' }), '/c/weights');
  assert.equal(defaultWeightsFolder({ XDG_CACHE_HOME: '/x' }), '/x/oarlock/weights');
});
