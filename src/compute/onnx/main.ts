/** A process for one task with ONNX Runtime. It may crash without harm to the compute host that started it, and ends with it. */
import { dirname, join } from 'node:path';
import type { OnnxReply, OnnxTask } from './protocol.js';

const reply = (message: OnnxReply): Promise<void> =>
  new Promise((resolve) => (process.connected ? process.send?.(message, () => resolve()) : resolve()));

async function run(task: OnnxTask): Promise<OnnxReply> {
  try {
    // Loaded here, so that a runtime that is not there is a reply too.
    if (task.task === 'convert') {
      const { convert } = await import('./convert.js');
      return { t: 'converted', result: await convert(task.spec) };
    }
    const [{ measure }, { describe }] = await Promise.all([import('./measure.js'), import('./description.js')]);
    const result = await measure(task.spec, process.env.OARLOCK_IMAGING_ADDON ?? '', (done, total) => {
      void reply({ t: 'progress', done, total });
    });
    await describe(join(dirname(task.spec.model), 'model.yml'), { Measured: result });
    return { t: 'measured', result };
  } catch (error) {
    return { t: 'failed', message: error instanceof Error ? error.message : String(error) };
  }
}

process.once('message', async (task: OnnxTask) => {
  await reply(await run(task));
  process.exit(0);
});
process.on('disconnect', () => process.exit(1));
