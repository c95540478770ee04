/** Photograph-like JPEG folders for the benchmarks, made once with NumPy and Pillow. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Peer, peer, root } from './peers.js';

const script = `
import sys, os, random
from PIL import Image, ImageFilter
import numpy as np
out, classes, each, w, h, labels = sys.argv[1], *map(int, sys.argv[2:7])
rng = np.random.default_rng(0)
# 1/f noise has the spectrum of photographs, so decoding costs what photographs cost; a steeper spectrum gives
# the smooth regions of label maps. Large photographs are as sharp as lens and sensor of a camera allow, and no
# more: a blur of 0.8 pixels (then 12 megapixels take 3 to 4 MB, like those of telephones).
blur = 0.8 if w * h > 4e6 else 0
def noise(power=1.0):
    f2 = np.fft.rfftfreq(w)[None, :]**2 + np.fft.fftfreq(h)[:, None]**2
    f = f2 ** power
    f[0, 0] = 1
    s = (rng.normal(size=f.shape) + 1j*rng.normal(size=f.shape)) / np.sqrt(f) * np.exp(-2 * (np.pi * blur)**2 * f2)
    p = np.fft.irfft2(s, (h, w))
    return (p - p.mean()) / p.std()
boxes = []
for c in range(classes):
    folder = f"{out}.tmp" if labels else f"{out}.tmp/class{c}"
    os.makedirs(folder + ("/masks" if labels else ""), exist_ok=True)
    for i in range(each):
        planes = [np.clip(noise() * 45 + 110 + 20*np.cos(c), 0, 255) for _ in range(3)]
        Image.fromarray(np.stack(planes, -1).astype(np.uint8)).save(f"{folder}/{i:05d}.jpg", quality=90)
        if labels:
            ids = np.clip((noise(2.5) + 2) * 1.5, 0, 5).astype(np.uint8)
            Image.fromarray(ids).save(f"{folder}/masks/{i:05d}.png")
            for _ in range(6):
                bw, bh = rng.integers(w//10, w//2), rng.integers(h//10, h//2)
                x, y = rng.integers(0, w - bw), rng.integers(0, h - bh)
                boxes.append(f"{i:05d}.jpg {rng.integers(0, 20)} {x} {y} {x + bw} {y + bh}")
if labels:
    open(f"{out}.tmp/boxes.txt", "w").write("\\n".join(boxes) + "\\n")
os.rename(out + ".tmp", out)
`;

function make(folder: string, by: Peer, numbers: number[]): string {
  if (existsSync(folder)) return folder;
  mkdirSync(join(root, 'bench/.peers/data'), { recursive: true });
  const done = spawnSync(peer(by), ['-c', script, folder, ...numbers.map(String)], { stdio: ['ignore', 2, 2] });
  if (done.status !== 0) throw new Error('making benchmark images failed');
  return folder;
}

/** A folder of `classes` × `each` JPEGs of the given size. */
export function jpegFolder(name: string, classes: number, each: number, width: number, height: number): string {
  const folder = join(root, 'bench/.peers/data', `${name}-${classes}x${each}-${width}x${height}`);
  return make(folder, 'torch', [classes, each, width, height, 0]);
}

/** A folder of `count` JPEGs with `boxes.txt` and label maps in `masks`. */
export function labeledFolder(name: string, count: number, width: number, height: number): string {
  const folder = join(root, 'bench/.peers/data', `${name}-${count}-${width}x${height}`);
  return make(folder, 'opencv', [1, count, width, height, 1]);
}
