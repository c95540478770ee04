/** `/system`: the machine, and ending all jobs. */
import { availableParallelism, cpus, freemem, type as osType, totalmem } from 'node:os';
import { z } from 'zod';
import type { Compute, DeviceInfo } from '../../compute/ports.js';
import { defineRoute, type Route } from '../route.js';

export interface SystemServices {
  readonly compute: Pick<Compute, 'devices'>;
  stopAll(): Promise<void>;
}

interface GpuState {
  free: number;
  used: number;
  total: number;
}

/** Values that cost a process call are asked for at most this often. */
const FRESH_MS = 1000;

/** Reads GPU memory and versions through systeminformation, which is loaded when first needed: it is large. */
class Machine {
  readonly #compute: Pick<Compute, 'devices'>;
  #gpus: Promise<GpuState[]> | undefined;
  #asked = 0;
  #name: Promise<string> | undefined;
  #driver: Promise<number | null> | undefined;

  constructor(compute: Pick<Compute, 'devices'>) {
    this.#compute = compute;
  }

  async gpuMemory(): Promise<GpuState[]> {
    const now = Date.now();
    if (this.#gpus === undefined || now - this.#asked > FRESH_MS) {
      this.#asked = now;
      this.#gpus = this.#readGpus();
      this.#gpus.catch(() => {
        this.#gpus = undefined;
      });
    }
    return this.#gpus;
  }

  async #readGpus(): Promise<GpuState[]> {
    const { gpus } = await this.#compute.devices();
    if (gpus.length === 0) return [];
    const { default: si } = await import('systeminformation');
    const cards = (await si.graphics()).controllers.filter((card) => card.memoryUsed !== undefined);
    return gpus.map((gpu: DeviceInfo) => {
      const card = cards[gpu.index];
      const total = card?.memoryTotal ?? gpu.memoryTotalMb;
      const used = card?.memoryUsed ?? Math.max(0, gpu.memoryTotalMb - gpu.memoryFreeMb);
      return { free: Math.round(card?.memoryFree ?? total - used), used: Math.round(used), total: Math.round(total) };
    });
  }

  /** Operating system and processor in words, asked for once. */
  name(): Promise<string> {
    this.#name ??= import('systeminformation')
      .then(async ({ default: si }) => {
        const os = await si.osInfo();
        return `${os.distro} ${os.release}`.trim();
      })
      .catch(() => osType());
    return this.#name;
  }

  /** CUDA version of the driver as an integer: 12040 is 12.4. */
  driver(): Promise<number | null> {
    this.#driver ??= import('node:child_process').then(
      ({ execFile }) =>
        new Promise((resolve) => {
          execFile('nvidia-smi', { timeout: 5000, windowsHide: true }, (_error, stdout) => {
            const found = /CUDA Version:\s*(\d+)\.(\d+)/.exec(stdout ?? '');
            resolve(found === null ? null : Number(found[1]) * 1000 + Number(found[2]) * 10);
          });
        }),
    );
    return this.#driver;
  }

  async info(): Promise<MachineInfo> {
    const { gpus, reason } = await this.#compute.devices();
    const cores = availableParallelism();
    const gb = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GB`;
    const parts = [
      await this.name(),
      `${cpus()[0]?.model.trim() ?? 'processor'}, ${cores} ${cores === 1 ? 'core' : 'cores'}`,
      `${gb(freemem())} of ${gb(totalmem())} memory free`,
      gpus.length === 0
        ? `no GPU${reason === null ? '' : ` (${reason})`}`
        : gpus.map((gpu) => `${gpu.name} (${Math.round(gpu.memoryTotalMb / 1024)} GB)`).join(', '),
    ];
    const info: MachineInfo = { message: parts.join('; '), cpu_num: cores, gpu_num: gpus.length, sysstr: osType() };
    if (gpus.length > 0) {
      info.driver_version = await this.driver();
      info.gpu_free_mem = (await this.gpuMemory()).map((gpu) => gpu.free);
    }
    return info;
  }
}

interface MachineInfo {
  message: string;
  cpu_num: number;
  gpu_num: number;
  sysstr: string;
  driver_version?: number | null;
  gpu_free_mem?: number[];
}

export function systemRoutes(services: SystemServices): Route[] {
  const machine = new Machine(services.compute);
  return [
    defineRoute({
      method: 'get',
      path: '/system',
      summary: 'Processors, GPUs and their memory',
      tag: 'system',
      input: z.object({
        type: z
          .enum(['machine_info', 'gpu_memory_size'])
          .describe('`machine_info`: everything; `gpu_memory_size`: memory of each GPU in MB'),
      }),
      output: z.object({
        info: z
          .object({
            message: z.string(),
            cpu_num: z.int(),
            gpu_num: z.int(),
            sysstr: z.string(),
            driver_version: z.int().nullable().optional(),
            gpu_free_mem: z.array(z.number()).optional(),
          })
          .optional(),
        gpu_mem_infos: z.array(z.object({ free: z.number(), used: z.number(), total: z.number() })).optional(),
      }),
      async handle({ type }) {
        if (type === 'gpu_memory_size') return { gpu_mem_infos: await machine.gpuMemory() };
        const info = await machine.info();
        return { info };
      },
    }),
    defineRoute({
      method: 'delete',
      path: '/system',
      summary: 'Ends every running job at a checkpoint; the server goes on',
      tag: 'system',
      role: 'admin',
      input: z.object({}),
      output: z.object({}),
      async handle() {
        await services.stopAll();
        return {};
      },
    }),
  ];
}
