/** Every network of the zoo: the exported ONNX, run by onnxruntime on a photograph, gives what the engine gives. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import * as ort from 'onnxruntime-node';
import { MODELS } from '../src/domain/params/models.js';
import { root } from './lib/server.js';

const binary = join(process.env.CARGO_TARGET_DIR ?? join(root, 'target'), 'release/oarlock-parity');
const photo = join(root, 'native/imaging/tests/fixtures/photo.jpg');

const floats = (file: string): Float32Array => {
  const bytes = readFileSync(file);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
};

describe('exported networks', () => {
  const folder = mkdtempSync(join(tmpdir(), 'oarlock-parity-'));
  after(() => rmSync(folder, { recursive: true, force: true }));

  // The `_ssld` names are the same networks with other weights.
  const names = MODELS.filter((m) => m.type === 'classification' && !m.name.endsWith('_ssld')).map((m) => m.name);
  const segmenters = MODELS.filter((m) => m.type === 'segmentation').flatMap((m) =>
    m.backbones.length === 0 ? [m.name] : m.backbones.map((backbone) => `${m.name}/${backbone}`),
  );
  const small = ['--size', '96'];
  const networks: [string, string[]][] = [
    ...names.map((name): [string, string[]] => [name, []]),
    ...segmenters.map((name): [string, string[]] => [name, small]),
    // These are padded in another way for weights of PaddleX; files are then for one size.
    ...['FastSCNN', 'BiSeNetV2', 'HRNet_W18'].map((name): [string, string[]] => [
      name,
      [...small, '--origin', 'paddle'],
    ]),
  ];

  it('are all there', () => {
    assert.ok(names.length >= 34, `${names.length}`);
    assert.ok(segmenters.length >= 15, `${segmenters.length}`);
  });

  for (const [name, options] of networks) {
    it(`${[name, ...options].join(' ')}: onnxruntime equals the engine to 1e-4`, async () => {
      const args = ['--model', name, '--image', photo, '--out', folder, ...options];
      const done = spawnSync(binary, args, { encoding: 'utf8' });
      assert.equal(done.status, 0, done.stdout + done.stderr);
      const said = JSON.parse(done.stdout.trim()) as { input: number[]; logits: number[] };
      const dir = join(folder, name.replace('/', '_'));
      const session = await ort.InferenceSession.create(join(dir, 'model.onnx'), { logSeverityLevel: 3 });
      const input = new ort.Tensor('float32', floats(join(dir, 'input.f32')), said.input);
      const out = await session.run({ [session.inputNames[0] ?? '']: input });
      const theirs = out[session.outputNames[0] ?? '']?.data as Float32Array;
      const ours = floats(join(dir, 'logits.f32'));
      assert.equal(theirs.length, ours.length);
      let difference = 0;
      let largest = 0;
      for (let i = 0; i < ours.length; i += 1) {
        difference = Math.max(difference, Math.abs((ours[i] ?? Number.NaN) - (theirs[i] ?? Number.NaN)));
        largest = Math.max(largest, Math.abs(ours[i] ?? 0));
      }
      assert.ok(largest > 1e-2, 'the network says something');
      assert.ok(difference <= 1e-4, `differs by ${difference}`);
      await session.release();
      rmSync(dir, { recursive: true });
    });
  }
});
