/**
 * A child process that opens a database before the server does, since damage in the file can abort the process that reads it.
 * `probe PATH`: exit 0 when everything can be read and a transaction begun. `probe PATH --salvage OUT`: writes every record
 * that can still be read to OUT, one JSON line each, as far as it gets.
 */
import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs';
import { decode, encode } from './codec.js';
import { PROBE } from './keys.js';
import { CURVES, loadAll, NewerFormatError, openDatabase } from './store.js';

const ABORTED = new Error('aborted on purpose');

function check(path: string): void {
  const db = openDatabase(path);
  const curves = db.openDB<string, string>(CURVES);
  loadAll(db);
  for (const { key, value } of curves.getRange({})) decode(key, value);
  try {
    // Begins and abandons a write, which walks the list of free pages.
    db.transactionSync(() => {
      for (let at = 0; at < 64; at++) db.putSync(`!probe${at}`, encode('probe', 'x'.repeat(3000)));
      throw ABORTED;
    });
  } catch (error) {
    if (error !== ABORTED) throw error;
  }
}

function salvage(path: string, out: string): void {
  const db = openDatabase(path);
  const file = openSync(out, 'w', 0o600);
  let kept = 0;
  try {
    for (const { key, value } of db.getRange({})) {
      try {
        decode(key, value);
      } catch {
        continue;
      }
      writeSync(file, `${JSON.stringify([key, value])}\n`);
      if (++kept % 100 === 0) fsyncSync(file);
    }
  } finally {
    fsyncSync(file);
    closeSync(file);
  }
}

const [path, mode, out] = process.argv.slice(2);
try {
  if (path === undefined) throw new Error('usage: probe PATH [--salvage OUT]');
  if (mode === '--salvage' && out !== undefined) salvage(path, out);
  else check(path);
  process.exitCode = PROBE.ok;
} catch (error) {
  process.stderr.write(`${(error as Error).message}\n`);
  process.exitCode = error instanceof NewerFormatError ? PROBE.newer : PROBE.damaged;
}
// Closing a damaged file can crash as well; the descriptors go with the process.
process.exit();
