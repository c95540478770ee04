/**
 * Detectors with their post-processing: onnxruntime alone gives, on a photograph and with weights that say something,
 * the engine's boxes.
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
const photo = join(root, 'native/imaging/tests/fixtures/photo.jpg');

interface Found {
  size: number[];
  boxes: number[][];
  scores: number[];
  labels: number[];
  /** COCO's run lengths: column by column, first of zeros. */
  masks: (number[] | null)[];
}

/** Pixels of a mask of probabilities that is spread over a box, column by column. */
function spread(
  mask: Float32Array,
  [x0 = 0, y0 = 0, x1 = 0, y1 = 0]: number[],
  height: number,
  width: number,
): boolean[] {
  const side = Math.sqrt(mask.length);
  const at = (x: number, y: number): number =>
    x < 0 || y < 0 || x >= side || y >= side ? 0 : (mask[y * side + x] ?? 0);
  return Array.from({ length: width * height }, (_, i) => {
    const px = ((Math.floor(i / height) + 0.5 - x0) / (x1 - x0)) * side - 0.5;
    const py = (((i % height) + 0.5 - y0) / (y1 - y0)) * side - 0.5;
    const [x, y] = [Math.floor(px), Math.floor(py)];
    const row = (y: number): number => at(x, y) * (1 - px + x) + at(x + 1, y) * (px - x);
    return row(y) * (1 - py + y) + row(y + 1) * (py - y) >= 0.5;
  });
}

const floats = (file: string): Float32Array => {
  const bytes = readFileSync(file);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
};

describe('exported detectors', () => {
  const folder = mkdtempSync(join(tmpdir(), 'oarlock-parity-'));
  after(() => rmSync(folder, { recursive: true, force: true }));

  const models = [
    'YOLOv3/MobileNetV1',
    'PPYOLO/ResNet18_vd',
    'PPYOLOTiny/MobileNetV3',
    'PPYOLOv2/ResNet50_vd_dcn',
    'PicoDet/ESNet_s',
    'FasterRCNN/ResNet18',
    'FasterRCNN/ResNet50 --fpn no',
    'MaskRCNN/ResNet18',
    'MaskRCNN/ResNet50 --fpn no',
  ];
  for (const model of models) {
    const [name = '', ...options] = model.split(' ');
    it(`${model}: onnxruntime finds what the engine finds`, async () => {
      const args = ['--model', name, '--image', photo, '--out', folder, '--size', '256', '--classes', '3', ...options];
      const done = spawnSync(binary, args, { encoding: 'utf8' });
      assert.equal(done.status, 0, done.stdout + done.stderr);
      const said = JSON.parse(done.stdout.trim()) as { input: number[] };
      const dir = join(folder, name.replace('/', '_'));
      const ours = JSON.parse(readFileSync(join(dir, 'found.json'), 'utf8')) as Found;
      const session = await ort.InferenceSession.create(join(dir, 'model.onnx'), { logSeverityLevel: 3 });
      const out = await session.run({
        image: new ort.Tensor('float32', floats(join(dir, 'input.f32')), said.input),
        size: new ort.Tensor('float32', Float32Array.from(ours.size), [4]),
      });
      const boxes = out.boxes?.data as Float32Array;
      const scores = out.scores?.data as Float32Array;
      const labels = Array.from(out.labels?.data as BigInt64Array, Number);
      assert.ok(ours.scores.length >= 10, `only ${ours.scores.length} boxes`);
      assert.ok(Math.max(...ours.scores) - Math.min(...ours.scores) > 0.003, 'scores differ');
      assert.equal(scores.length, ours.scores.length);
      // Of nearly equal scores rounding decides which comes first.
      const left = new Set(ours.scores.keys());
      for (const [i, score] of scores.entries()) {
        const box = Array.from(boxes.slice(4 * i, 4 * i + 4));
        const same = [...left].find(
          (j) =>
            ours.labels[j] === labels[i] &&
            Math.abs((ours.scores[j] ?? 0) - score) <= 1e-3 &&
            box.every((edge, side) => Math.abs(edge - (ours.boxes[j]?.[side] ?? 0)) <= 1e-3 * Math.max(1, ...box)),
        );
        assert.ok(same !== undefined, `${name} ${i}: ${score} ${labels[i]} ${box}`);
        left.delete(same);
        const runs = ours.masks[same];
        assert.equal(runs != null, out.masks !== undefined);
        if (runs == null) continue;
        const masks = out.masks?.data as Float32Array;
        const area = masks.length / scores.length;
        const [height = 0, width = 0] = ours.size;
        const theirs = spread(masks.subarray(i * area, (i + 1) * area), box, height, width);
        const own = runs.flatMap((run, j) => new Array<boolean>(run).fill(j % 2 === 1));
        assert.equal(own.length, theirs.length);
        const different = own.filter((pixel, j) => pixel !== theirs[j]).length;
        // Rounding decides where a probability is almost a half.
        assert.ok(different <= 2 + own.filter(Boolean).length / 1000, `${different} pixels differ`);
      }
      await session.release();
      rmSync(dir, { recursive: true });
    });
  }
});
