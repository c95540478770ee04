/** Keeps the API process responsive while hosts use every core, and makes hosts, not the server, the victims when memory runs out. */
import { readdirSync, writeFileSync } from 'node:fs';
import { setPriority } from 'node:os';
import { usableCores } from './machine.js';
import type { Lane } from './ports.js';
import { TOKEN_VARIABLE } from './protocol.js';

/** Priority of a host's threads against those of the server. */
const NICENESS: Readonly<Record<Lane, number>> = { train: 10, interactive: 5, light: 0 };
/** Priority of a host as a whole against everything else on the machine, where sessions share the processor: less extreme, or a busy machine would starve trainings. */
const SESSION_NICENESS: Readonly<Record<Lane, number>> = { train: 5, interactive: 2, light: 0 };
const OOM_SCORE: Readonly<Record<Lane, number>> = { train: 800, interactive: 500, light: 0 };

/** Best effort: a container may forbid any of it. */
export function yieldToServer(pid: number, lane: Lane): void {
  const nice = NICENESS[lane];
  let threads = [pid];
  try {
    // On Linux the priority belongs to a thread; later threads inherit it.
    threads = readdirSync(`/proc/${pid}/task`).map(Number);
  } catch {}
  for (const thread of threads) {
    try {
      setPriority(thread, nice);
    } catch {}
  }
  // With autogrouping a session's share counts before that of its threads, and each host is a session of its own.
  for (const [file, value] of [
    ['autogroup', SESSION_NICENESS[lane]],
    ['oom_score_adj', OOM_SCORE[lane]],
  ] as const) {
    try {
      writeFileSync(`/proc/${pid}/${file}`, String(value));
    } catch {}
  }
}

/** Not for hosts: settings of this process's own runtime, and its secret. */
const WITHHELD = ['NODE_OPTIONS', 'NODE_CHANNEL_FD', 'NODE_CHANNEL_SERIALIZATION_MODE', 'OARLOCK_TOKEN'];

/** Environment of a host. `cuda` undefined leaves GPUs to the job; an empty list hides them, so that choosing the CPU never touches CUDA. */
export function hostEnvironment(
  token: string,
  engineAddon: string,
  cuda: readonly number[] | undefined,
  extra: Readonly<Record<string, string>>,
): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = { ...process.env };
  for (const name of WITHHELD) delete env[name];
  const cores = String(usableCores());
  for (const name of ['OMP_NUM_THREADS', 'MKL_NUM_THREADS']) env[name] ??= cores;
  // Threads that spin long at a barrier starve the one they wait for when other programs or the data loader want the
  // cores too; threads that sleep at once pay for it at each of the hundreds of small operations of a mobile network.
  // Spinning for some tens of microseconds costs neither much (measured: MobileNetV3_small 95 % of its rate alone with
  // endless spinning, and seven times that beside another busy program).
  if (env.OMP_WAIT_POLICY === undefined) env.GOMP_SPINCOUNT ??= '5000';
  if (cuda?.length === 0) env.CUDA_VISIBLE_DEVICES = '';
  return { ...env, OARLOCK_ENGINE_ADDON: engineAddon, ...extra, [TOKEN_VARIABLE]: token };
}
