/** GPUs of this machine as the engine sees them. This process never touches CUDA: a host is asked, and only when there is a driver. */
import { existsSync } from 'node:fs';
import type { ComputeConfig } from './config.js';
import type { HostProcess } from './host-process.js';
import type { DeviceInfo } from './ports.js';

export interface DeviceAnswer {
  gpus: DeviceInfo[];
  /** Why there is none; null when there are some. */
  reason: string | null;
}

const DRIVER_FILES = ['/proc/driver/nvidia/version', '/dev/nvidiactl', '/dev/nvidia0', '/dev/dxg'];
const ANSWER_MS = 30_000;

export class DeviceList {
  #answer: Promise<DeviceAnswer> | undefined;
  #until = 0;

  constructor(
    private readonly config: ComputeConfig,
    private readonly host: () => Promise<HostProcess | undefined>,
    private readonly hasDriver: () => boolean = () => DRIVER_FILES.some((file) => existsSync(file)),
  ) {}

  get(): Promise<DeviceAnswer> {
    if (!this.hasDriver()) {
      return Promise.resolve({
        gpus: [],
        reason: 'No NVIDIA driver is loaded on this machine: computing runs on the CPU.',
      });
    }
    const now = Date.now();
    if (this.#answer === undefined || now > this.#until) {
      this.#until = now + this.config.devicesCacheMs;
      this.#answer = this.#ask();
    }
    return this.#answer;
  }

  async #ask(): Promise<DeviceAnswer> {
    const host = await this.host().catch(() => undefined);
    const answer = host?.isReady === true ? await host.devices(ANSWER_MS) : undefined;
    return (
      answer ?? { gpus: [], reason: 'The compute host did not say which GPUs it sees; the server log tells more.' }
    );
  }
}
