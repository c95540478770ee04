/** Numbers of the compute layer. Times are milliseconds. */
import { fileURLToPath } from 'node:url';
import { type Launcher, launcherOf } from './launcher.js';

export interface ComputeConfig {
  /** Workspace folder: running hosts are recorded in `<workspace>/.oarlock/hosts.json`. */
  workspace: string;
  /** Addon with libtorch; hosts load it. */
  engineAddon: string;
  /** Addon without libtorch; pool threads of this process load it. */
  imagingAddon: string;
  launcher: Launcher;
  /** Trainings that may share the CPU at a time. A CUDA device always runs one. */
  cpuSlots: number;
  /** Waiting jobs a lane accepts. */
  trainQueue: number;
  interactiveQueue: number;
  lightQueue: number;
  /** Jobs at a time in the interactive host. */
  interactiveConcurrency: number;
  /** Pool threads for short calls; one more serves imports. */
  lightThreads: number;
  /** Longest short call. */
  lightTimeoutMs: number;
  /** A pool thread without work ends after this time, so that its memory is given back. */
  lightIdleMs: number;
  /** Native silence after which a job counts as stalled; a job whose steps are longer gets five of its own steps. */
  stallMs: number;
  /** A silent CPU job that keeps the processor busy gets this many times as long: it is slow rather than stuck. */
  busyFactor: number;
  /** From asking a job to stop until SIGTERM. */
  stopGraceMs: number;
  /** From SIGTERM until SIGKILL. */
  termGraceMs: number;
  /** Time a host may need to load the engine. */
  startMs: number;
  /** How long hosts without work stay, with their libraries and models loaded. */
  trainIdleMs: number;
  interactiveIdleMs: number;
  /** Longest life of a host that has lost its server: time to reach the next checkpoint. */
  orphanGraceMs: number;
  /** Time to collect thread stacks of a stalled host; 0 = none. */
  stackDumpMs: number;
  /** How long an answer about GPUs is reused. */
  devicesCacheMs: number;
  /** Lower processor priority for hosts, and the first place among the victims when memory runs out. */
  yieldToServer: boolean;
  /** Further environment of hosts. */
  hostEnv: Readonly<Record<string, string>>;
}

const built = (name: string): string => fileURLToPath(new URL(`../../../build/${name}`, import.meta.url));

/** Fills in what is not given. */
export function computeConfig(given: Partial<ComputeConfig> & Pick<ComputeConfig, 'workspace'>): ComputeConfig {
  return {
    engineAddon: process.env.OARLOCK_ENGINE_ADDON ?? built('oarlock-engine.node'),
    imagingAddon: process.env.OARLOCK_IMAGING_ADDON ?? built('oarlock-imaging.node'),
    launcher: launcherOf(process.env.OARLOCK_LAUNCHER ?? 'local'),
    cpuSlots: 1,
    trainQueue: 200,
    interactiveQueue: 32,
    lightQueue: 256,
    interactiveConcurrency: 2,
    lightThreads: 2,
    lightTimeoutMs: 30_000,
    lightIdleMs: 10_000,
    stallMs: 120_000,
    busyFactor: 5,
    stopGraceMs: 60_000,
    termGraceMs: 10_000,
    startMs: 120_000,
    trainIdleMs: 3 * 60_000,
    interactiveIdleMs: 15 * 60_000,
    orphanGraceMs: 60_000,
    stackDumpMs: 8_000,
    devicesCacheMs: 30_000,
    yieldToServer: process.env.OARLOCK_HOST_PRIORITY !== 'normal',
    hostEnv: {},
    ...given,
  };
}
