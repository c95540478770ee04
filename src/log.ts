/** The server's log: everything as JSON lines in a file of the workspace, what matters on stderr for people. */
import { mkdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type Level, type Logger, multistream, pino } from 'pino';

const MAX_BYTES = 20 * 2 ** 20;
const KEPT = 3;

/** Old log files move aside at start when they have grown large. */
function rotate(file: string): void {
  try {
    if (statSync(file).size < MAX_BYTES) return;
  } catch {
    return;
  }
  rmSync(`${file}.${KEPT}`, { force: true });
  for (let n = KEPT - 1; n >= 0; n--) {
    try {
      renameSync(n === 0 ? file : `${file}.${n}`, `${file}.${n + 1}`);
    } catch {
      // Not there: nothing to keep.
    }
  }
}

const WORDS: Readonly<Record<number, string>> = { 40: 'warning', 50: 'error', 60: 'fatal' };

/** One readable line a record; stacks stay in the file. */
const people = {
  write(line: string): void {
    const { level, msg, logId, err } = JSON.parse(line) as {
      level: number;
      msg?: string;
      logId?: string;
      err?: { message?: string };
    };
    const details = [err?.message, logId === undefined ? undefined : `log id ${logId}`].filter(Boolean).join(', ');
    process.stderr.write(`${WORDS[level] ?? 'note'}: ${msg ?? ''}${details === '' ? '' : ` (${details})`}\n`);
  },
};

export interface ServerLog {
  readonly log: Logger;
  readonly file: string;
  /** Writes out what is buffered; for the end of the process. */
  flush(): void;
}

export function openLog(stateDir: string, level: Level | 'silent'): ServerLog {
  mkdirSync(stateDir, { recursive: true });
  const file = join(stateDir, 'server.log');
  rotate(file);
  const destination = pino.destination({ dest: file, sync: false, minLength: 0, mode: 0o600 });
  const streams = multistream([
    { level: 'trace', stream: destination },
    { level: 'warn', stream: people },
  ]);
  const log = pino({ level, base: { pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime }, streams);
  return {
    log,
    file,
    flush() {
      try {
        destination.flushSync();
      } catch {
        // Not open yet: nothing was written.
      }
    },
  };
}
