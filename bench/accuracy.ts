/** `npm run bench -- accuracy`: the same training on MNIST in fp32 and bf16 ends at the same validation accuracy. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { mnistFolder } from '../test/lib/pictures.js';
import { add, finish } from './lib/report.js';
import { fill, type Server, startOurs } from './lib/servers.js';

async function trained(server: Server, pid: string, model: string, precision: string): Promise<number> {
  const train = {
    ...{ model, precision, batch_size: 32, num_epochs: 3, save_interval_epochs: 1, image_shape: [48, 48] },
    ...{ learning_rate: 0.03, lr_policy: 'Cosine', warmup_steps: 100, pretrain_weights: null },
    ...{ horizontal_flip: false, vertical_flip: false, brightness: false, contrast: false, rotate: false },
  };
  const tid = String((await server.call('POST', '/project/task', { pid, train })).tid);
  await server.call('POST', '/project/task/train', { tid });
  for (;;) {
    await sleep(500);
    const { task_status, message } = await server.call('GET', '/project/task', { tid });
    if (task_status === 4) break;
    if (task_status !== 3) throw new Error(`${model} ${precision}: ${JSON.stringify(message)}`);
  }
  const { eval_metrics } = await server.call('GET', '/project/task/metrics', { tid, type: 'eval' });
  return (eval_metrics as { acc1: number }).acc1;
}

export async function accuracy(): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), 'oarlock-bench-'));
  const digits = mnistFolder(12_000, 2_000);
  const server = await startOurs(join(base, 'ws'), digits, 18_081);
  try {
    const { pid } = await fill(server, digits, 1);
    for (const model of ['ResNet18', 'MobileNetV3_small']) {
      const fp32 = await trained(server, pid, model, 'fp32');
      const bf16 = await trained(server, pid, model, 'bf16');
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
    rmSync(base, { recursive: true, force: true });
  }
  finish('accuracy');
}
