/** Output of the command-line tools: lines, progress, errors with what to do about them. */
import { realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { OarlockError } from '../domain/errors.js';

/** What a tool writes to; tests give their own. */
export interface Terminal {
  out(line: string): void;
  err(line: string): void;
  /** Redraws one line on a terminal; says nothing elsewhere. `done` of `total` 0 = unknown. */
  progress(what: string, done: number, total: number): void;
  /** Ends the progress line. */
  progressEnd(): void;
}

const WIDTH = 24;
const REDRAW_MS = 80;

export function processTerminal(): Terminal {
  const live = process.stderr.isTTY === true;
  let drawn = 0;
  let open = false;
  const clear = () => {
    if (open) process.stderr.write('\r\x1b[K');
    open = false;
  };
  return {
    out(line) {
      clear();
      process.stdout.write(`${line}\n`);
    },
    err(line) {
      clear();
      process.stderr.write(`${line}\n`);
    },
    progress(what, done, total) {
      const now = performance.now();
      if (!live || (now - drawn < REDRAW_MS && done < total)) return;
      drawn = now;
      open = true;
      const share = total > 0 ? Math.min(1, done / total) : 0;
      const bar = '#'.repeat(Math.round(share * WIDTH)).padEnd(WIDTH, '-');
      process.stderr.write(`\r\x1b[K[${bar}] ${(share * 100).toFixed(0).padStart(3)} %  ${what}`);
    },
    progressEnd: clear,
  };
}

/** A wrong command line: the message and how it should be. */
export class UsageError extends Error {}

/** Runs a tool; its exit code: 0 done, 1 failed, 2 wrong command line. */
export async function runTool(terminal: Terminal, work: () => Promise<number>): Promise<number> {
  try {
    return await work();
  } catch (error) {
    terminal.progressEnd();
    if (error instanceof UsageError || isParseError(error)) {
      terminal.err((error as Error).message);
      return 2;
    }
    terminal.err(`Error: ${(error as Error).message}`);
    if (error instanceof OarlockError) {
      if (error.hint !== undefined) terminal.err(error.hint);
    } else if (PROGRAMMING.has((error as Error).name)) {
      terminal.err((error as Error).stack ?? '');
    }
    return 1;
  }
}

/** Mistakes in the program itself: their place helps whoever reports them. */
const PROGRAMMING = new Set(['TypeError', 'ReferenceError', 'RangeError', 'SyntaxError']);

const isParseError = (error: unknown): boolean =>
  String((error as NodeJS.ErrnoException)?.code).startsWith('ERR_PARSE_ARGS');

/** `12.3 MB`. */
export function size(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

/** Whether a module is the program that was started, also when the checkout is reached through a link. */
export function isMain(url: string): boolean {
  const started = process.argv[1];
  if (started === undefined) return false;
  try {
    return realpathSync(started) === realpathSync(fileURLToPath(url));
  } catch {
    return false;
  }
}
