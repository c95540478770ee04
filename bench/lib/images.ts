/** Photograph-like JPEG folders for the benchmarks, made once with NumPy and Pillow. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { peer, root } from './peers.js';

const script = `
import sys, os, random
from PIL import Image, ImageFilter
import numpy as np
out, classes, each, w, h = sys.argv[1], *map(int, sys.argv[2:6])
rng = np.random.default_rng(0)
for c in range(classes):
    os.makedirs(f"{out}.tmp/class{c}", exist_ok=True)
    for i in range(each):
        # 1/f noise has the spectrum of photographs, so decoding costs what photographs cost.
        f = np.fft.rfftfreq(w)[None, :]**2 + np.fft.fftfreq(h)[:, None]**2
        f[0, 0] = 1
        planes = []
        for _ in range(3):
            s = (rng.normal(size=f.shape) + 1j*rng.normal(size=f.shape)) / np.sqrt(f)
            p = np.fft.irfft2(s, (h, w)); p = (p - p.mean()) / p.std() * 45 + 110 + 20*np.cos(c)
            planes.append(np.clip(p, 0, 255))
        Image.fromarray(np.stack(planes, -1).astype(np.uint8)).save(f"{out}.tmp/class{c}/{i:05d}.jpg", quality=90)
os.rename(out + ".tmp", out)
`;

/** A folder of `classes` × `each` JPEGs of the given size. */
export function jpegFolder(name: string, classes: number, each: number, width: number, height: number): string {
  const folder = join(root, 'bench/.peers/data', `${name}-${classes}x${each}-${width}x${height}`);
  if (existsSync(folder)) return folder;
  mkdirSync(join(root, 'bench/.peers/data'), { recursive: true });
  const done = spawnSync(peer('torch'), ['-c', script, folder, ...[classes, each, width, height].map(String)], {
    stdio: ['ignore', 2, 2],
  });
  if (done.status !== 0) throw new Error('making benchmark images failed');
  return folder;
}
