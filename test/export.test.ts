/** Exports over HTTP with real hosts: int8 by every method, measured by onnxruntime, the lite form, and what goes wrong. */
import assert from 'node:assert/strict';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import * as ort from 'onnxruntime-node';
import { colourFolder } from './lib/pictures.js';
import { hosts, type Json, project, send, TestServer } from './lib/server.js';

const SIDE = 32;
const COLOURS = ['red', 'green', 'blue'];
const params: Json = {
  model: 'MobileNetV3_small',
  batch_size: 8,
  num_epochs: 5,
  learning_rate: 0.02,
  save_interval_epochs: 1,
  image_shape: [SIDE, SIDE],
  precision: 'fp32',
  pretrain_weights: null,
};

/** One picture of each class as in the training set, normalised. */
function pictures(): ort.Tensor {
  const plane = SIDE * SIDE;
  const mean = [0.485, 0.456, 0.406];
  const std = [0.229, 0.224, 0.225];
  const data = Float32Array.from({ length: 3 * 3 * plane }, (_, at) => {
    const c = Math.floor(at / plane) % 3;
    const level = (c === Math.floor(at / (3 * plane)) ? 190 : 40) + ((at * 7919) % 61);
    return (level / 255 - (mean[c] ?? 0)) / (std[c] ?? 1);
  });
  return new ort.Tensor('float32', data, [3, 3, SIDE, SIDE]);
}

async function scores(path: string): Promise<number[]> {
  const session = await ort.InferenceSession.create(path);
  const result = await session.run({ [session.inputNames[0] ?? '']: pictures() });
  return Array.from(result[session.outputNames[0] ?? '']?.data as Float32Array);
}

/** Class of each of the three pictures. */
const classes = (all: number[]): number[] =>
  [0, 1, 2].map((row) => {
    const own = all.slice(3 * row, 3 * row + 3);
    return own.indexOf(Math.max(...own));
  });

const entry = (folder: string, key: string): Json =>
  JSON.parse(
    new RegExp(`^${key}: (\\{.*\\})$`, 'm').exec(readFileSync(join(folder, 'model.yml'), 'utf8'))?.[1] ?? '{}',
  );

const hidden = (folder: string): string[] => readdirSync(folder).filter((name) => name.startsWith('.'));

describe('exports over HTTP', { concurrency: false }, () => {
  let server: TestServer;
  let pid = '';
  let tid = '';
  let dir = '';
  let labels: string[] = [];
  const folder = (name: string): string => join(dir, name);
  const post = (args: Json): Promise<Json> =>
    server.ok('POST', '/project/task/export', { tid, type: 'infer', ...args });
  const ended = (seconds = 60): Promise<Json> =>
    server.until(seconds, 'GET', '/project/task/export', { tid }, (a) => a.export_status !== 6, 20);
  async function exported(args: Json): Promise<Json> {
    await post(args);
    const end = await ended();
    assert.equal(end.export_status, 7, JSON.stringify(end));
    return end;
  }

  before(async () => {
    server = await TestServer.start();
    const images = colourFolder(join(server.folder, 'images'), COLOURS, 60, SIDE);
    ({ pid } = await project(server, images, { val_split: 0.2, test_split: 0.1, seed: 5 }));
    ({ tid } = await server.ok('POST', '/project/task', { pid, train: params }));
    await server.ok('POST', '/project/task/train', { tid });
    const end = await server.until(180, 'GET', '/project/task', { tid }, (a) => a.task_status !== 3);
    assert.equal(end.task_status, 4, JSON.stringify(end));
    dir = (await server.ok('GET', '/workspace', { struct: 'task', id: tid, attr_list: ['path'] })).attr.path;
    labels = readFileSync(join(dir, 'output/best_model/model.yml'), 'utf8').match(/(?<=^ {2}- ).*(?=$)/gm) ?? [];
    assert.deepEqual([...labels].sort(), [...COLOURS].sort());
  });
  after(() => server.remove());

  it('fp32: onnxruntime computes what the engine does', async () => {
    const { measured, message } = await exported({ save_dir: folder('fp32') });
    assert.equal(message, `${tid} is exported.`);
    assert.ok(measured.difference <= 1e-4, `differs by ${measured.difference}`);
    assert.equal(measured.fp32, null);
    assert.ok(measured.model.latency_ms > 0);
    const model = join(folder('fp32'), 'inference_model');
    assert.equal(measured.model.bytes, statSync(join(model, 'model.onnx')).size);
    assert.deepEqual(entry(model, 'Measured'), measured);
    assert.deepEqual(
      classes(await scores(join(model, 'model.onnx'))).map((at) => labels[at]),
      COLOURS,
    );
    assert.deepEqual((await server.ok('GET', '/project/task/export', { tid, quant: 'result' })).quant_result, {});
    const log = await server.ok('GET', '/project/task/export', { tid, quant: 'log' });
    assert.deepEqual([log.quant_log.stage, log.quant_log.running_duration], [null, null]);
  });

  for (const method of ['min_max', 'percentile', 'entropy']) {
    it(`int8 by ${method}: as accurate, smaller, in the contract's stages`, async () => {
      const save_dir = folder(`int8 ${method}`);
      await post({ save_dir, quant: true, quant_method: method, quant_images: 64 });
      const seen: Json[] = [];
      let end: Json;
      do {
        end = await server.call('GET', '/project/task/export', { tid });
        seen.push((await server.ok('GET', '/project/task/export', { tid, quant: 'log' })).quant_log);
      } while (end.export_status === 6);
      for (const [at, log] of seen.entries()) {
        assert.ok((log.running_duration ?? 0) >= (seen[at - 1]?.running_duration ?? 0), 'progress never goes back');
      }
      assert.equal(end.export_status, 7, JSON.stringify(end));
      assert.deepEqual(seen.at(-1), {
        log_file: join(dir, 'logs/export/out.log'),
        stage: 'Finish',
        running_duration: 1,
      });
      const { quant_result } = await server.ok('GET', '/project/task/export', { tid, quant: 'result' });
      assert.deepEqual(Object.keys(quant_result.before), ['acc1', 'acc3']);
      assert.deepEqual(Object.keys(quant_result.after), ['acc1', 'acc3']);
      const best = (await server.ok('GET', '/project/task/metrics', { tid, type: 'eval' })).eval_metric;
      assert.ok(Math.abs(quant_result.before.acc1 - best.acc1) < 1e-9, 'fp32 in the other runtime is what was trained');
      assert.ok(quant_result.before.acc1 - quant_result.after.acc1 <= 0.005, JSON.stringify(quant_result));
      assert.deepEqual(JSON.parse(readFileSync(join(dir, 'logs/export/quant_result.json'), 'utf8')), quant_result);
      const { measured } = end;
      assert.ok(measured.model.bytes < 0.35 * measured.fp32.bytes, JSON.stringify(measured));
      assert.equal(measured.images, 36);
      const model = join(save_dir, 'inference_model');
      assert.deepEqual(entry(model, 'Measured'), measured);
      assert.match(readFileSync(join(model, 'model.yml'), 'utf8'), new RegExp(`method: ${method}\n`));
      assert.deepEqual(
        classes(await scores(join(model, 'model.onnx'))).map((at) => labels[at]),
        COLOURS,
      );
      assert.deepEqual(hidden(save_dir), []);
      assert.deepEqual(readdirSync(join(dir, 'logs/export')).sort(), ['err.log', 'out.log', 'quant_result.json']);
    });
  }

  it('writes the lines that PaddleX users know', () => {
    const log = readFileSync(join(dir, 'logs/export/out.log'), 'utf8');
    for (const line of [
      /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[INFO\]\t\[Run batch data\] Batch=1\/2, /m,
      /\t\[Calculate weight\] Weight_id=1\/54, /,
      /\t\[Calculate activation\] Activation_id=\d+\/\d+, /,
      /\tFinish quant!$/m,
      /\t\[EVAL\] before, acc1=[01]\.\d{6}, acc3=1\.000000, size=\d+, latency=[\d.]+ms \.$/m,
      /\t\[EVAL\] after, acc1=/,
    ]) {
      assert.match(log, line);
    }
  });

  it('says that the training set is smaller than asked', async () => {
    const { message } = await exported({ save_dir: folder('few'), quant: true, quant_images: 5000 });
    assert.match(message, /The training set has 126 images, 5000 were to calibrate; all 126 were used\./);
    assert.match(readFileSync(join(dir, 'logs/export/out.log'), 'utf8'), /\[WARNING\]\tThe training set has 126/);
    assert.match(readFileSync(join(folder('few'), 'inference_model/model.yml'), 'utf8'), /calibration_images: 126/);
  });

  it('lite: the same results from the own format of onnxruntime, of fp32 and of int8', async () => {
    for (const name of ['fp32', 'int8 percentile']) {
      const save_dir = join(server.folder, `lite ${name}`);
      const source = join(folder(name), 'inference_model');
      const convert = { tid, type: 'lite', model_path: name === 'fp32' ? source : folder(name), save_dir };
      for (let turn = 0; turn < 2; turn += 1) {
        const answer = await server.ok('POST', '/project/task/export', convert);
        assert.match(answer.message, /lite_model\/model\.ort, \d+\.\d MB\.$/);
      }
      const path = join(save_dir, 'lite_model');
      assert.deepEqual(readdirSync(path).sort(), ['.success', 'labels.txt', 'model.ort', 'model.yml']);
      assert.equal(readFileSync(join(path, 'model.ort')).subarray(4, 8).toString(), 'ORTM');
      const [before, after] = [await scores(join(source, 'model.onnx')), await scores(join(path, 'model.ort'))];
      for (const [at, score] of after.entries()) assert.ok(Math.abs(score - (before[at] ?? 0)) <= 1e-3, name);
      assert.match(readFileSync(join(path, 'model.yml'), 'utf8'), /^Format: "ort"$/m);
      const { bytes, difference_to_source } = entry(path, 'Converted');
      assert.equal(bytes, statSync(join(path, 'model.ort')).size);
      assert.ok(difference_to_source <= 1e-3);
      assert.deepEqual(hidden(save_dir), []);
    }
  });

  it('refuses what cannot be, and names it', async () => {
    const wrong = async (code: string, args: Json, message: RegExp): Promise<void> => {
      const answer = await server.fails(code, 'POST', '/project/task/export', { tid, type: 'infer', ...args });
      assert.match(answer.message, message);
    };
    const save_dir = folder('never');
    await wrong('invalid_argument', { save_dir, quant: true, quant_method: 'best' }, /quant_method/);
    await wrong('invalid_argument', { save_dir, quant: true, quant_images: 0 }, /quant_images must be/);
    await wrong('invalid_argument', { save_dir, type: 'lite' }, /model_path is missing/);
    await wrong('forbidden_path', { save_dir, type: 'lite', model_path: '/etc' }, /outside/);
    await wrong('not_found', { save_dir, type: 'lite', model_path: join(dir, 'nowhere') }, /no file or folder/);
    await wrong('not_ready', { save_dir, type: 'lite', model_path: join(dir, 'output') }, /no exported model/);
    const lite = join(server.folder, 'lite fp32/lite_model');
    await wrong('invalid_argument', { save_dir, type: 'lite', model_path: lite }, /lite model already/);
    await wrong(
      'invalid_argument',
      { save_dir: join(dir, 'output'), type: 'lite', model_path: folder('fp32') },
      /needs/,
    );
    await wrong(
      'invalid_argument',
      { save_dir: join(folder('fp32'), 'inference_model'), type: 'lite', model_path: folder('fp32') },
      /inside the exported model/,
    );
    assert.ok(!existsSync(save_dir));

    assert.equal((await server.ok('GET', '/project/task', { tid })).task_status, 7);
  });

  it('a damaged model is not converted, and what was there stays', async () => {
    const broken = join(server.folder, 'broken');
    cpSync(join(folder('fp32'), 'inference_model'), broken, { recursive: true });
    writeFileSync(join(broken, 'model.onnx'), readFileSync(join(broken, 'model.onnx')).subarray(0, 5000));
    const save_dir = join(server.folder, 'lite fp32');
    const before = readFileSync(join(save_dir, 'lite_model/model.ort'));
    const convert = { tid, type: 'lite', model_path: broken, save_dir };
    const answer = await server.fails('invalid_argument', 'POST', '/project/task/export', convert);
    assert.match(answer.message, /could not be converted/);
    assert.deepEqual(readFileSync(join(save_dir, 'lite_model/model.ort')), before);
    assert.deepEqual(hidden(save_dir), []);
    const full = join(server.folder, 'full');
    mkdirSync(join(full, 'lite_model'), { recursive: true });
    writeFileSync(join(full, 'lite_model/own.txt'), 'mine');
    const other = { ...convert, model_path: folder('fp32'), save_dir: full };
    assert.match(
      (await server.fails('invalid_argument', 'POST', '/project/task/export', other)).message,
      /other files/,
    );
    assert.equal(readFileSync(join(full, 'lite_model/own.txt'), 'utf8'), 'mine');
    rmSync(broken, { recursive: true });
  });

  it('one at a time; stopped or with its host killed, the older export is still there', async () => {
    const save_dir = folder('int8 entropy');
    const file = join(save_dir, 'inference_model/model.onnx');
    const before = readFileSync(file);
    const args = { save_dir, quant: true, quant_method: 'min_max' };
    await post(args);
    await server.fails('conflict', 'POST', '/project/task/export', { tid, type: 'infer', ...args });
    const convert = { tid, type: 'lite', model_path: save_dir, save_dir: folder('lite') };
    await server.fails('conflict', 'POST', '/project/task/export', convert);
    const stopped = await server.ok('PUT', '/project/task/export', { tid });
    assert.deepEqual([stopped.export_status, stopped.message], [13, 'The export was stopped.']);
    assert.equal((await server.ok('GET', '/project/task', { tid })).task_status, 7);
    await server.fails('conflict', 'PUT', '/project/task/export', { tid });

    await post(args);
    for (const host of hosts(server.child.pid ?? 0)) process.kill(host, 'SIGKILL');
    const killed = await ended();
    assert.deepEqual([killed.status, killed.export_status], [-1, 13]);
    assert.match(killed.message, /SIGKILL|killed|signal/i);
    assert.deepEqual(readFileSync(file), before);
    assert.deepEqual(hidden(save_dir), []);
    assert.deepEqual(
      readdirSync(join(dir, 'logs/export')).filter((name) => /bin|onnx/.test(name)),
      [],
    );
    await exported(args);
    assert.notDeepEqual(readFileSync(file), before);
  });

  it('keeps exported models with their evaluation, gives their files and deletes them', async () => {
    await server.ok('POST', '/project/task/evaluate', { tid });
    await server.until(60, 'GET', '/project/task/evaluate', { tid }, (a) => a.evaluate_status !== 11);
    await exported({ save_dir: folder('fp32') });
    const path = folder('int8 percentile');
    const model = { pid, tid, name: 'small', type: 'exported', path, exported_type: 0, eval_results: {} };
    const { emid } = await server.ok('POST', '/model', model);
    const lite = join(dir, 'lite');
    await server.ok('POST', '/project/task/export', { tid, type: 'lite', model_path: path, save_dir: lite });
    const { emid: mobile } = await server.ok('POST', '/model', {
      ...model,
      name: 'mobile',
      path: lite,
      exported_type: 1,
    });
    const { exported_models } = await server.ok('GET', '/model', { type: 'exported' });
    assert.deepEqual(
      exported_models.map((one: Json) => [one.id, one.name, one.exported_type, one.model, one.path]),
      [
        [emid, 'small', 0, 'MobileNetV3_small', path],
        [mobile, 'mobile', 1, 'MobileNetV3_small', lite],
      ],
    );
    const about = await server.ok('GET', '/model', { mid: emid });
    assert.deepEqual(about.dataset_attr.labels, labels);
    assert.equal(about.task_params.train.model, 'MobileNetV3_small');
    assert.ok(about.eval_result.Acc1 > 0.9);
    assert.equal(about.measured, undefined, 'the last export went elsewhere');
    const { emid: plain } = await server.ok('POST', '/model', { ...model, name: 'plain', path: folder('fp32') });
    const figures = (await server.ok('GET', '/model', { mid: plain })).measured;
    assert.deepEqual(figures, entry(join(folder('fp32'), 'inference_model'), 'Measured'));
    await exported({ save_dir: folder('fp32'), quant: true });
    assert.equal((await server.ok('GET', '/model', { mid: plain })).measured.images, 36, 'replaced by a new export');
    await server.ok('DELETE', '/model', { type: 'exported', emid: plain });
    assert.ok(!existsSync(folder('fp32')));
    const file = join(path, 'inference_model/model.onnx');
    const reply = await send(server.port, 'GET', '/model/file', { path: file });
    assert.deepEqual(reply.body, readFileSync(file));
    for (const id of [emid, mobile]) await server.ok('DELETE', '/model', { type: 'exported', emid: id });
    assert.ok(!existsSync(path), 'a folder that an export made goes with its model');
    assert.ok(!existsSync(lite));
    assert.deepEqual((await server.ok('GET', '/model', { type: 'exported' })).exported_models, []);
    assert.ok(existsSync(join(folder('few'), 'inference_model/model.onnx')), 'other exports stay');
  });
});
