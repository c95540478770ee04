/** How a compute host is started and spoken to. The protocol is the same everywhere; only the way the messages travel differs. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { encodeLine, LineDecoder, type ToHost } from './protocol.js';

const HOST_MAIN = fileURLToPath(new URL('./host/main.js', import.meta.url));

/** After the process ended, its last messages may still be under way. */
const DRAIN_MS = 500;

export interface HostEvents {
  message(value: unknown): void;
  /** Standard error, and whatever the host prints beside the protocol. */
  output(text: string): void;
  /** The peer sends what is no protocol; the host must be ended. */
  broken(reason: string): void;
  /** Called once: the process has ended and all its messages were delivered, or it could not be started. */
  closed(end: { code: number | null; signal: NodeJS.Signals | null; startError?: string }): void;
}

/** A started host; its process leads a group of its own. */
export interface HostLink {
  /** Undefined when the process could not be started. */
  readonly pid: number | undefined;
  send(message: ToHost): void;
  /** Signals the process itself, whoever it is: only valid before `closed`. */
  kill(signal: NodeJS.Signals): void;
}

export interface Launcher {
  readonly name: string;
  /** Whether the host runs on this machine, so that its memory and threads can be looked at through `pid`. */
  readonly local: boolean;
  launch(env: NodeJS.ProcessEnv, events: HostEvents): HostLink;
}

/** Starts hosts as child processes of this one, with Node's IPC channel. */
export function localLauncher(): Launcher {
  return {
    name: 'local',
    local: true,
    launch(env, events) {
      const child = spawn(process.execPath, ['--enable-source-maps', HOST_MAIN], {
        detached: true,
        env,
        serialization: 'json',
        stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      });
      child.on('message', (value) => events.message(value));
      child.stdout?.on('data', (chunk: Buffer) => events.output(chunk.toString()));
      child.stderr?.on('data', (chunk: Buffer) => events.output(chunk.toString()));
      watchEnd(child, events, [onceEvent(child, 'disconnect'), streamEnd(child.stdout), streamEnd(child.stderr)]);
      return {
        pid: child.pid,
        send(message) {
          // The callback form never throws: an ended host is reported by `closed`.
          if (child.connected) child.send(message, () => {});
        },
        kill: (signal) => void child.kill(signal),
      };
    },
  };
}

/**
 * Starts hosts through another command, such as `srun --ntasks=1 --gpus=1`, and speaks the protocol on its standard streams.
 * The host keeps the protocol on a descriptor of its own and its standard output joins standard error, so that nothing printed by a library can tear a message.
 */
export function commandLauncher(command: readonly string[], name = command[0] ?? 'command'): Launcher {
  return {
    name,
    local: false,
    launch(env, events) {
      const [file, ...args] = [
        ...command,
        'sh',
        '-c',
        'exec "$@" 3>&1 1>&2',
        'sh',
        process.execPath,
        HOST_MAIN,
        '--stdio=3',
      ];
      const child = spawn(file as string, args, { detached: true, env, stdio: ['pipe', 'pipe', 'pipe'] });
      const decoder = new LineDecoder(events.message, (text) => events.output(`${text}\n`));
      let broken = false;
      const decode = (work: () => void): void => {
        if (broken) return;
        try {
          work();
        } catch (error) {
          broken = true;
          events.broken(error instanceof Error ? error.message : String(error));
        }
      };
      child.stdout.on('data', (chunk: Buffer) => decode(() => decoder.push(chunk)));
      child.stdout.on('end', () => decode(() => decoder.end()));
      child.stderr.on('data', (chunk: Buffer) => events.output(chunk.toString()));
      child.stdin.on('error', () => {}); // EPIPE: the host is ending, `closed` tells
      watchEnd(child, events, [streamEnd(child.stdout), streamEnd(child.stderr)]);
      return {
        pid: child.pid,
        send(message) {
          if (child.stdin.writable) child.stdin.write(encodeLine(message));
        },
        kill: (signal) => void child.kill(signal),
      };
    },
  };
}

/** Hosts as steps of a Slurm job; further options select partition, time and GPUs. */
export const slurmLauncher = (options: readonly string[] = []): Launcher =>
  commandLauncher(['srun', '--ntasks=1', '--unbuffered', '--export=ALL', ...options], 'slurm');

/** From one line of configuration: `local`, `slurm` with options for `srun`, or any other command with its arguments. */
export function launcherOf(text: string): Launcher {
  const [name = 'local', ...options] = text.split(/\s+/).filter((word) => word !== '');
  if (name === 'local') return localLauncher();
  return name === 'slurm' ? slurmLauncher(options) : commandLauncher([name, ...options]);
}

const onceEvent = (child: ChildProcess, name: string): Promise<void> =>
  new Promise((resolve) => child.once(name, () => resolve()));

const streamEnd = (stream: NodeJS.ReadableStream | null): Promise<void> =>
  new Promise((resolve) => {
    if (stream === null) resolve();
    else stream.once('close', resolve);
  });

function watchEnd(child: ChildProcess, events: HostEvents, drained: Promise<void>[]): void {
  let closed = false;
  const close = (end: { code: number | null; signal: NodeJS.Signals | null; startError?: string }): void => {
    if (closed) return;
    closed = true;
    // A grandchild may hold the pipes open for ever.
    for (const stream of [child.stdin, child.stdout, child.stderr]) stream?.destroy();
    events.closed(end);
  };
  child.on('error', (error) => {
    if (child.pid === undefined) close({ code: null, signal: null, startError: error.message });
  });
  child.on('exit', (code, signal) => {
    const timer = setTimeout(() => close({ code, signal }), DRAIN_MS);
    void Promise.all(drained).then(() => {
      clearTimeout(timer);
      close({ code, signal });
    });
  });
}
