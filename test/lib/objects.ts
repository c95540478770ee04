/** The scenes as sets of objects: boxes in Pascal VOC files, boxes and masks in an MSCOCO file, exact by construction. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { LABELS, type Scene, type SceneSet, scene, scenePng } from './scenes.js';

/** Class names in the order of their ids: the scenes' without the background. */
export const OBJECTS = LABELS.slice(1);

/** Fewer visible pixels are no object. */
const SMALLEST = 40;

export interface SceneObject {
  /** Place in `OBJECTS`. */
  id: number;
  /** x, y, width, height of its visible pixels. */
  box: [number, number, number, number];
  area: number;
  /** Runs of its pixels down the columns, as MSCOCO counts them. */
  counts: number[];
}

/** What can be seen of each object of a scene. */
export function objectsOf({ side, map }: Scene): SceneObject[] {
  const found: SceneObject[] = [];
  for (const id of OBJECTS.keys()) {
    let [left, top, right, bottom, area] = [side, side, 0, 0, 0];
    const counts = [0];
    let set = false;
    for (let x = 0; x < side; x += 1) {
      for (let y = 0; y < side; y += 1) {
        const inside = map[y * side + x] === id + 1;
        if (inside !== set) {
          counts.push(0);
          set = inside;
        }
        counts[counts.length - 1] = (counts.at(-1) ?? 0) + 1;
        if (!inside) continue;
        [left, top, right, bottom] = [
          Math.min(left, x),
          Math.min(top, y),
          Math.max(right, x + 1),
          Math.max(bottom, y + 1),
        ];
        area += 1;
      }
    }
    if (area >= SMALLEST) found.push({ id, area, counts, box: [left, top, right - left, bottom - top] });
  }
  return found;
}

const made = (set: SceneSet): Scene[] => Array.from({ length: set.train + set.heldOut }, (_, i) => scene(set, i));

function pictures(scenes: readonly Scene[], folder: string): void {
  mkdirSync(join(folder, 'JPEGImages'), { recursive: true });
  for (const [i, one] of scenes.entries()) writeFileSync(join(folder, `JPEGImages/${i}.png`), scenePng(one));
}

/** Writes the set in the Pascal VOC format, split already: the held out ones validate. Returns the folder. */
export function vocFolder(set: SceneSet, folder: string, test = 0): string {
  const scenes = made(set);
  pictures(scenes, folder);
  mkdirSync(join(folder, 'Annotations'), { recursive: true });
  for (const [i, one] of scenes.entries()) {
    const objects = objectsOf(one).map(({ id, box: [x, y, w, h] }) => {
      const corners = `<xmin>${x}</xmin><ymin>${y}</ymin><xmax>${x + w}</xmax><ymax>${y + h}</ymax>`;
      return `<object><name>${OBJECTS[id]}</name><bndbox>${corners}</bndbox></object>`;
    });
    const size = `<size><width>${set.side}</width><height>${set.side}</height><depth>3</depth></size>`;
    writeFileSync(join(folder, `Annotations/${i}.xml`), `<annotation>${size}${objects.join('')}</annotation>`);
  }
  const list = (from: number, to?: number): string =>
    [...scenes.keys()]
      .slice(from, to)
      .map((i) => `JPEGImages/${i}.png Annotations/${i}.xml\n`)
      .join('');
  writeFileSync(join(folder, 'labels.txt'), `${OBJECTS.join('\n')}\n`);
  writeFileSync(join(folder, 'train_list.txt'), list(0, set.train));
  writeFileSync(join(folder, 'val_list.txt'), list(set.train));
  if (test > 0) writeFileSync(join(folder, 'test_list.txt'), list(-test));
  return folder;
}

/** Writes the set as one MSCOCO file, not split. Returns the folder. */
export function cocoFolder(set: SceneSet, folder: string): string {
  const scenes = made(set);
  pictures(scenes, folder);
  const images = scenes.map((_, i) => ({ id: i + 1, file_name: `${i}.png`, width: set.side, height: set.side }));
  const annotations = scenes.flatMap((one, i) =>
    objectsOf(one).map(({ id, box, area, counts }) => {
      const segmentation = { size: [set.side, set.side], counts };
      return { image_id: i + 1, category_id: 10 - id, bbox: box, area, iscrowd: 0, segmentation };
    }),
  );
  const categories = OBJECTS.map((name, id) => ({ id: 10 - id, name }));
  const numbered = annotations.map((one, id) => ({ id, ...one }));
  writeFileSync(join(folder, 'annotations.json'), JSON.stringify({ images, annotations: numbered, categories }));
  return folder;
}
