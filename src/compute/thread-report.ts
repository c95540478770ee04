/** What the threads of a hanging process are doing, as text for its log. */
import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';

const MAX_THREADS = 128;
const MAX_STACK_TEXT = 256 * 1024;

async function field(file: string): Promise<string> {
  try {
    return (await readFile(file, 'utf8')).trim();
  } catch {
    return '?';
  }
}

/** Native stacks, where a debugger is installed and allowed to look. */
function debuggerStacks(pid: number, timeoutMs: number): Promise<string> {
  const args = ['-p', String(pid), '-batch', '-nx', '-ex', 'set pagination off', '-ex', 'thread apply all bt 24'];
  return new Promise((resolve) => {
    // SIGKILL: a debugger that hangs on a stopped process ignores less; the kernel detaches it.
    execFile(
      'gdb',
      args,
      { timeout: timeoutMs, killSignal: 'SIGKILL', maxBuffer: 4 * MAX_STACK_TEXT },
      (error, stdout) => resolve(stdout === '' && error ? '' : stdout.slice(0, MAX_STACK_TEXT)),
    );
  });
}

/** State, kernel wait point and, where possible, stack of every thread. Takes at most about `timeoutMs`. */
export async function threadReport(pid: number, timeoutMs: number): Promise<string> {
  let threads: string[];
  try {
    threads = await readdir(`/proc/${pid}/task`);
  } catch {
    return `process ${pid} is gone\n`;
  }
  const lines = await Promise.all(
    threads.slice(0, MAX_THREADS).map(async (thread) => {
      const folder = `/proc/${pid}/task/${thread}`;
      const [name, status, waits, call] = await Promise.all([
        field(`${folder}/comm`),
        field(`${folder}/status`),
        field(`${folder}/wchan`),
        field(`${folder}/syscall`),
      ]);
      const state = /^State:\s+(.*)$/m.exec(status)?.[1] ?? '?';
      return `thread ${thread} ${name}: ${state}, waits in ${waits}, system call ${call.split(' ')[0]}`;
    }),
  );
  return `${lines.join('\n')}\n${await debuggerStacks(pid, timeoutMs)}`;
}
