/** Where a task's jobs run when they use one device. */
import type { DomainContext } from './context.js';
import { ordinals } from './params/index.js';
import type { TaskRecord } from './records.js';

/** The task's first GPU that is there, else the CPU. */
export async function taskDevice({ compute }: DomainContext, task: TaskRecord): Promise<number[]> {
  const wanted = ordinals(String(task.params.cuda_visible_devices ?? ''));
  if (wanted.length === 0) return [];
  const { gpus } = await compute.devices();
  return wanted.filter((index) => gpus.some((gpu) => gpu.index === index)).slice(0, 1);
}
