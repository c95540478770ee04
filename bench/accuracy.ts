/**
 * `npm run bench -- accuracy`: the same training on MNIST in fp32 and bf16 ends at the same validation accuracy, and
 * segmenters find what was composed onto photographs that they have never seen, detectors each thing of it.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { cocoFolder, vocFolder } from '../test/lib/objects.js';
import { mnistFolder } from '../test/lib/pictures.js';
import { composed } from '../test/lib/scenes.js';
import { photographs } from './lib/photographs.js';
import { add, finish } from './lib/report.js';
import { fill, type Server, startOurs } from './lib/servers.js';

/** Its task and the best epoch's metric of a training. */
async function trained(
  server: Server,
  pid: string,
  train: Record<string, unknown>,
  metric: string,
): Promise<{ tid: string; value: number }> {
  const tid = String((await server.call('POST', '/project/task', { pid, train })).tid);
  await server.call('POST', '/project/task/train', { tid });
  for (;;) {
    await sleep(500);
    const { task_status, message } = await server.call('GET', '/project/task', { tid });
    if (task_status === 4) break;
    if (task_status !== 3) throw new Error(`${train.model}: ${JSON.stringify(message)}`);
  }
  const { eval_metrics } = await server.call('GET', '/project/task/metrics', { tid, type: 'eval' });
  return { tid, value: (eval_metrics as Record<string, number>)[metric] ?? Number.NaN };
}

/** Mean IoU of an export in floats and in integers, as ONNX Runtime computes both. */
async function quantized(server: Server, tid: string, save_dir: string): Promise<{ before: number; after: number }> {
  const options = { type: 'infer', save_dir, quant: true, quant_images: 64 };
  const begun = await server.call('POST', '/project/task/export', { tid, ...options });
  if (begun.status !== 1) throw new Error(`export of ${tid}: ${JSON.stringify(begun)}`);
  for (;;) {
    await sleep(500);
    const { export_status, message } = await server.call('GET', '/project/task/export', { tid });
    if (export_status === 7) break;
    if (export_status !== 6) throw new Error(`export of ${tid}: ${JSON.stringify(message)}`);
  }
  const { quant_result } = await server.call('GET', '/project/task/export', { tid, quant: 'result' });
  const { before, after } = quant_result as Record<'before' | 'after', { miou: number }>;
  return { before: before.miou, after: after.miou };
}

async function digits(server: Server, pid: string, model: string, precision: string): Promise<number> {
  const train = {
    ...{ model, precision, batch_size: 32, num_epochs: 3, save_interval_epochs: 1, image_shape: [48, 48] },
    ...{ learning_rate: 0.03, lr_policy: 'Cosine', warmup_steps: 100, pretrain_weights: null },
    ...{ horizontal_flip: false, vertical_flip: false, brightness: false, contrast: false, rotate: false },
  };
  return (await trained(server, pid, train, 'acc1')).value;
}

/** Mean IoU of segmenters on scenes composed onto photographs that are in none of the training pictures. */
async function scenes(base: string): Promise<void> {
  const side = 192;
  const train = Number(process.env.BENCH_PICTURES ?? 400);
  const epochs = Number(process.env.BENCH_EPOCHS ?? 6);
  const set = { side, train, heldOut: Math.ceil(train / 5), photographs: photographs() };
  const folder = composed(set, join(base, 'scenes'));
  const server = await startOurs(join(base, 'scenes-ws'), folder, 18_083);
  try {
    const pid = await project(server, folder);
    for (const [model, backbone] of [
      ['DeepLabV3P', 'MobileNetV2_x1.0'],
      ['UNet', ''],
    ] as const) {
      const params = {
        ...{ model, backbone, batch_size: 4, num_epochs: epochs, save_interval_epochs: epochs },
        ...{ image_shape: [side, side], learning_rate: 0.05, lr_policy: 'Polynomial', pretrain_weights: null },
      };
      const begin = performance.now();
      const { tid, value: miou } = await trained(server, pid, params, 'miou');
      const minutes = (performance.now() - begin) / 60_000;
      add({
        question: `${train} composed scenes of ${side}×${side}, ${model}, ${epochs} epochs: mean IoU`,
        ours: miou.toFixed(4),
        peer: `after ${minutes.toFixed(1)} min`,
        ratio: miou,
        goal: 0.85,
      });
      const { before, after } = await quantized(server, tid, join(base, `scenes-ws/int8-${tid}`));
      add({
        question: `${model}, int8: points of mean IoU lost`,
        ours: `int8 ${(100 * after).toFixed(2)} %`,
        peer: `fp32 ${(100 * before).toFixed(2)} %`,
        ratio: 100 * (before - after),
        goal: 1,
        atMost: true,
      });
    }
  } finally {
    await server.stop();
  }
}

/** Masks that Mask R-CNN finds, trained from nothing on scenes composed onto photographs. */
async function instances(base: string): Promise<void> {
  const side = 128;
  const train = Number(process.env.BENCH_PICTURES ?? 240);
  const epochs = Number(process.env.BENCH_EPOCHS ?? 6);
  const heldOut = Math.ceil(train / 5);
  const folder = cocoFolder({ side, train, heldOut, apart: true, photographs: photographs() }, join(base, 'instances'));
  const server = await startOurs(join(base, 'instances-ws'), folder, 18_084);
  try {
    const split = { val_split: heldOut / (train + heldOut), test_split: 0, seed: 1 };
    const pid = await project(server, folder, 'instance_segmentation', split);
    const params = {
      ...{ model: 'MaskRCNN', backbone: 'ResNet18', batch_size: 4, num_epochs: epochs, save_interval_epochs: epochs },
      ...{
        image_shape: [side, side],
        learning_rate: 0.01,
        lr_policy: 'Cosine',
        warmup_steps: 60,
        pretrain_weights: null,
      },
    };
    const begin = performance.now();
    const { tid } = await trained(server, pid, params, 'bbox_mmap');
    const minutes = (performance.now() - begin) / 60_000;
    const map = await maskAp(server, tid);
    add({
      question: `${train} composed scenes of ${side}×${side}, MaskRCNN-ResNet18 from scratch, ${epochs} epochs: mask mAP50`,
      ours: map.toFixed(4),
      peer: `after ${minutes.toFixed(1)} min`,
      ratio: map,
      goal: 0.6,
    });
  } finally {
    await server.stop();
  }
}

/** Boxes that a one-stage detector finds, trained from nothing on scenes composed onto photographs it has not seen. */
async function objects(base: string): Promise<void> {
  const side = 160;
  const train = Number(process.env.BENCH_PICTURES ?? 600);
  const epochs = Number(process.env.BENCH_EPOCHS ?? 20);
  const set = { side, train, heldOut: Math.ceil(train / 5), apart: true, photographs: photographs() };
  const folder = vocFolder(set, join(base, 'objects'));
  const server = await startOurs(join(base, 'objects-ws'), folder, 18_085);
  try {
    const pid = await project(server, folder, 'detection');
    const params = {
      ...{ model: 'YOLOv3', backbone: 'MobileNetV1', batch_size: 8, num_epochs: epochs },
      ...{ save_interval_epochs: Math.max(1, Math.floor(epochs / 4)), image_shape: [side, side], random_shape: false },
      ...{ learning_rate: 0.002, lr_policy: 'Cosine', warmup_steps: 100, pretrain_weights: null, use_mixup: false },
    };
    const begin = performance.now();
    const map = (await trained(server, pid, params, 'bbox_map')).value / 100;
    const minutes = (performance.now() - begin) / 60_000;
    add({
      question: `${train} composed scenes of ${side}×${side}, YOLOv3-MobileNetV1 from scratch, ${epochs} epochs: VOC mAP50`,
      ours: map.toFixed(4),
      peer: `after ${minutes.toFixed(1)} min`,
      ratio: map,
      goal: 0.8,
    });
  } finally {
    await server.stop();
  }
}

/** COCO's average precision of masks at an overlap of 0.5, mean over the classes, of a task's best epoch. */
async function maskAp(server: Server, tid: string): Promise<number> {
  await server.call('POST', '/project/task/evaluate', { tid, score_thresh: 0, overlap_thresh: 0.5 });
  for (;;) {
    await sleep(500);
    const { evaluate_status, result, message } = await server.call('GET', '/project/task/evaluate', { tid });
    if (evaluate_status === 5) return Number((result as Record<string, unknown>).Mask_mAP);
    if (evaluate_status !== 11) throw new Error(`evaluation of ${tid}: ${JSON.stringify(message)}`);
  }
}

/** A project on an imported set, split already unless `split` says how. */
async function project(
  server: Server,
  path: string,
  type = 'segmentation',
  split?: Record<string, number>,
): Promise<string> {
  const did = String((await server.call('POST', '/dataset', { name: type, desc: '', dataset_type: type })).did);
  await server.call('PUT', '/dataset', { did, path });
  for (;;) {
    const { dataset_status, message } = await server.call('GET', '/dataset', { did });
    if (dataset_status === (split ? 4 : 6)) break;
    if (dataset_status !== 1 && dataset_status !== 3) throw new Error(`import: ${JSON.stringify(message)}`);
    await sleep(100);
  }
  if (split) await server.call('PUT', '/dataset/split', { did, ...split });
  const pid = String((await server.call('POST', '/project', { name: type, desc: '', project_type: type })).pid);
  await server.call('PUT', '/workspace', { struct: 'project', id: pid, attr_dict: { did } });
  return pid;
}

async function precisions(base: string): Promise<void> {
  const folder = mnistFolder(12_000, 2_000);
  const server = await startOurs(join(base, 'ws'), folder, 18_081);
  try {
    const { pid } = await fill(server, folder, 1);
    for (const model of ['ResNet18', 'MobileNetV3_small']) {
      const fp32 = await digits(server, pid, model, 'fp32');
      const bf16 = await digits(server, pid, model, 'bf16');
      add({
        question: `MNIST, ${model}, 3 epochs: points apart`,
        ours: `bf16 ${(100 * bf16).toFixed(2)} %`,
        peer: `fp32 ${(100 * fp32).toFixed(2)} %`,
        ratio: 100 * Math.abs(bf16 - fp32),
        goal: 0.3,
        atMost: true,
      });
    }
  } finally {
    await server.stop();
  }
}

/** `BENCH_PARTS=scenes`, `objects`, `instances` or `precisions` runs one of the four. */
export async function accuracy(): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), 'oarlock-bench-'));
  const part = process.env.BENCH_PARTS;
  const wanted = (name: string): boolean => part === undefined || part === name;
  try {
    if (wanted('precisions')) await precisions(base);
    if (wanted('scenes')) await scenes(base);
    if (wanted('objects')) await objects(base);
    if (wanted('instances')) await instances(base);
  } finally {
    rmSync(base, { recursive: true, force: true });
  }
  finish('accuracy');
}
