/**
 * The operations of detectors: the exported ONNX, run by onnxruntime, gives what the engine gives, with and without
 * regions, for open and fixed image sizes.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import * as ort from 'onnxruntime-node';
import { root } from './lib/server.js';

const binary = join(process.env.CARGO_TARGET_DIR ?? join(root, 'target'), 'release/oarlock-parity');

interface Said {
  input: number[];
  regions: Record<string, number[]>;
  outputs: Record<string, number[]>;
  fold_difference: number;
}

describe('operations of detectors', () => {
  const folder = mkdtempSync(join(tmpdir(), 'oarlock-operations-'));
  after(() => rmSync(folder, { recursive: true, force: true }));

  const floats = (dir: string, name: string): Float32Array => {
    const bytes = readFileSync(join(dir, `${name}.f32`));
    return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  };

  for (const name of ['deform', 'regions']) {
    it(`${name}: onnxruntime equals the engine to 1e-4`, async () => {
      const args = ['--model', `operations/${name}`, '--image', '-', '--out', folder];
      const done = spawnSync(binary, args, { encoding: 'utf8' });
      assert.equal(done.status, 0, done.stdout + done.stderr);
      const said = JSON.parse(done.stdout.trim()) as Said;
      assert.ok(said.fold_difference < 1e-4, `folding: ${said.fold_difference}`);
      const dir = join(folder, `operations_${name}`);
      for (const file of ['model.onnx', 'fixed.onnx']) {
        const session = await ort.InferenceSession.create(join(dir, file), { logSeverityLevel: 3 });
        const feeds: Record<string, ort.Tensor> = {
          image: new ort.Tensor('float32', floats(dir, 'input'), said.input),
        };
        const given = Object.entries(said.regions);
        for (const [node, shape] of given) feeds[node] = new ort.Tensor('float32', floats(dir, node), shape);
        const out = await session.run(feeds);
        for (const [output, shape] of Object.entries(said.outputs)) {
          const [ours, theirs] = [floats(dir, output), out[output]];
          assert.deepEqual(theirs?.dims, shape, output);
          let [difference, largest] = [0, 0];
          for (let i = 0; i < ours.length; i += 1) {
            const [a, b] = [ours[i] ?? Number.NaN, Number(theirs?.data[i])];
            difference = Math.max(difference, Math.abs(a - b));
            largest = Math.max(largest, Math.abs(a));
          }
          assert.ok(largest > 0.05, `${output} says something`);
          assert.ok(difference <= 1e-4, `${file} ${output} differs by ${difference} of ${largest}`);
        }
        // Without regions: no rows, no error.
        for (const [node] of given) feeds[node] = new ort.Tensor('float32', new Float32Array(0), [0, 5]);
        const none = given.length > 0 ? await session.run(feeds) : {};
        for (const [output, value] of Object.entries(none)) {
          const rows = output.startsWith('score') ? said.input[0] : 0;
          assert.equal(value.dims[0], rows, output);
        }
        await session.release();
      }
    });
  }
});
