/** Photographs of scikit-image and scikit-learn, unpacked once. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Picture, readPng } from '../../test/lib/pictures.js';
import { peer, root } from './peers.js';

const script = `
import os, sys, skimage.data
from PIL import Image
from sklearn.datasets import load_sample_image
out = sys.argv[1]
os.makedirs(out + ".tmp", exist_ok=True)
for name in ["astronaut", "chelsea", "rocket", "coffee"]:
    Image.fromarray(getattr(skimage.data, name)()).save(f"{out}.tmp/{name}.png")
for name in ["china", "flower"]:
    Image.fromarray(load_sample_image(name + ".jpg")).save(f"{out}.tmp/{name}.png")
os.rename(out + ".tmp", out)
`;

/** Those to train on, and others to be held out. */
export function photographs(): { train: Picture[]; heldOut: Picture[] } {
  const folder = join(root, 'bench/.peers/data/photographs');
  if (!existsSync(folder)) {
    mkdirSync(join(root, 'bench/.peers/data'), { recursive: true });
    const done = spawnSync(peer('photographs'), ['-c', script, folder], { stdio: ['ignore', 2, 2] });
    if (done.status !== 0) throw new Error('unpacking the photographs failed');
  }
  const read = (name: string): Picture => readPng(join(folder, `${name}.png`));
  return { train: ['astronaut', 'chelsea', 'rocket', 'flower'].map(read), heldOut: ['china', 'coffee'].map(read) };
}
