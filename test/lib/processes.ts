/** Processes of a server under test. */
import { readdirSync, readFileSync } from 'node:fs';

/** Pids of compute hosts below a server, found by their command line. */
export function hosts(server: number): number[] {
  const found: number[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const parent = Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${name}/status`, 'utf8'))?.[1]);
      if (parent === server && readFileSync(`/proc/${name}/cmdline`, 'utf8').includes('host/main'))
        found.push(Number(name));
    } catch {
      // it ended while we looked
    }
  }
  return found;
}
