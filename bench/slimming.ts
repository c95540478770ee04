/** `npm run bench -- slimming`: MNIST classifiers pruned by 40 % of their FLOPs and trained for one more epoch, against their parents. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { mnistFolder } from '../test/lib/pictures.js';
import { add, finish } from './lib/report.js';
import { fill, type Server, startOurs } from './lib/servers.js';

const TRAINING = [3, 15];
const TRAINED = 4;
const ANALYSED = 2;

async function trained(server: Server, tid: string, more: object = {}): Promise<number> {
  await server.call('POST', '/project/task/train', { tid, ...more });
  for (;;) {
    await sleep(500);
    const { task_status, message } = await server.call('GET', '/project/task', { tid });
    if (task_status === TRAINED) break;
    if (!TRAINING.includes(Number(task_status))) throw new Error(`${tid}: ${JSON.stringify(message)}`);
  }
  const { eval_metrics } = await server.call('GET', '/project/task/metrics', { tid, type: 'eval' });
  return (eval_metrics as { acc1: number }).acc1;
}

async function analysed(server: Server, tid: string): Promise<void> {
  await server.call('POST', '/project/task/prune', { tid });
  for (;;) {
    await sleep(500);
    const { prune_status, message } = await server.call('GET', '/project/task/prune', { tid });
    if (prune_status === ANALYSED) return;
    if (prune_status !== 1) throw new Error(`${tid}: ${JSON.stringify(message)}`);
  }
}

export async function slimming(): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), 'oarlock-bench-'));
  const digits = mnistFolder(12_000, 2_000);
  const server = await startOurs(join(base, 'ws'), digits, 18_082);
  try {
    const { pid } = await fill(server, digits, 1);
    for (const model of ['ResNet18', 'MobileNetV2']) {
      const train = {
        ...{ model, batch_size: 32, num_epochs: 3, save_interval_epochs: 1, image_shape: [48, 48] },
        ...{ learning_rate: 0.03, lr_policy: 'Cosine', warmup_steps: 100, pretrain_weights: null },
        ...{ horizontal_flip: false, vertical_flip: false, brightness: false, contrast: false, rotate: false },
      };
      const parent = String((await server.call('POST', '/project/task', { pid, train })).tid);
      const before = await trained(server, parent);
      await analysed(server, parent);
      const tid = String((await server.call('POST', '/project/task', { pid, parent_id: parent })).tid);
      await server.call('POST', '/project/task/params', { tid, train: { num_epochs: 1, learning_rate: 0.01 } });
      const after = await trained(server, tid, { pruned_flops: 0.4 });
      const { train_log } = await server.call('GET', '/project/task/metrics', { tid, type: 'train' });
      const { pruned_flops } = (train_log as { pruning: { pruned_flops: number } }).pruning;
      add({
        question: `MNIST, ${model}, −${(100 * pruned_flops).toFixed(0)} % FLOPs: points lost`,
        ours: `pruned ${(100 * after).toFixed(2)} %`,
        peer: `parent ${(100 * before).toFixed(2)} %`,
        ratio: 100 * (before - after),
        goal: 0.5,
        atMost: true,
      });
    }
  } finally {
    await server.stop();
    rmSync(base, { recursive: true, force: true });
  }
  finish('slimming');
}
