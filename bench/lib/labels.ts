/** Label maps for the benchmarks, made once with NumPy. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { peer, root } from './peers.js';

const script = `
import os, sys
import numpy as np
out, kind, (count, size, classes) = sys.argv[1], sys.argv[2], map(int, sys.argv[3:6])
rng = np.random.default_rng(0)
f2 = np.fft.rfftfreq(size)[None, :]**2 + np.fft.fftfreq(size)[:, None]**2
f2[0, 0] = 1
def field():
    s = (rng.normal(size=f2.shape) + 1j * rng.normal(size=f2.shape)) / f2**1.25
    p = np.fft.irfft2(s, (size, size))
    return (p - p.mean()) / p.std()
ids = lambda p: np.clip((p + 2) / 4 * classes, 0, classes - 1).astype(np.uint8)
os.makedirs(out + ".tmp")
with open(out + ".tmp/truths.u8", "wb") as truths, open(out + ".tmp/predictions.u8", "wb") as predictions:
    other = field()
    for i in range(count):
        if kind == "regions":
            # Truth and prediction differ at the borders of regions; nobody labelled the last rows.
            one = field()
            truth, predicted = ids(one), ids(one + 0.05 * other)
            truth[-size // 50:] = 255
            other = one
        else:
            truth, predicted = rng.integers(0, classes, (2, size, size), np.uint8)
        truths.write(truth.tobytes())
        predictions.write(predicted.tobytes())
os.rename(out + ".tmp", out)
`;

/**
 * A folder with `truths.u8` and `predictions.u8`, `count` maps of `size`×`size` class ids one after another:
 * `regions` as pictures have them, or `noise`, where no pixel is like its neighbour.
 */
export function labelMaps(kind: 'regions' | 'noise', count: number, size: number, classes: number): string {
  const folder = join(root, 'bench/.peers/data', `labels-${kind}-${count}x${size}-${classes}`);
  if (existsSync(folder)) return folder;
  mkdirSync(join(root, 'bench/.peers/data'), { recursive: true });
  const args = ['-c', script, folder, kind, ...[count, size, classes].map(String)];
  const done = spawnSync(peer('opencv'), args, { stdio: ['ignore', 2, 2] });
  if (done.status !== 0) throw new Error('making label maps failed');
  return folder;
}
