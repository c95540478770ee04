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

  it('are all there', () => assert.ok(names.length >= 34, `${names.length}`));

  for (const name of names) {
    it(`${name}: onnxruntime equals the engine to 1e-4`, async () => {
      const args = ['--model', name, '--image', photo, '--out', folder];
      const done = spawnSync(binary, args, { encoding: 'utf8' });
      assert.equal(done.status, 0, done.stdout + done.stderr);
      const said = JSON.parse(done.stdout.trim()) as { input: number[]; logits: number[] };
      const dir = join(folder, name);
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
