/** Small helpers shared by the set-up scripts. No dependencies: they run before `npm ci`. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
export const say = (text) => process.stderr.write(`${text}\n`);

export class SetupError extends Error {}

/** Ends the script with a readable message instead of a stack. */
export function guard(main) {
  main().catch((error) => {
    say(error instanceof SetupError ? `\n${error.message}` : (error.stack ?? String(error)));
    process.exit(1);
  });
}

/** Runs a command with its output shown; throws with what failed. */
export function run(command, args, options = {}) {
  const done = spawnSync(command, args, { cwd: root, stdio: ['ignore', 2, 2], ...options });
  if (done.error || done.status !== 0) {
    const why = done.error?.message ?? (done.signal ? `signal ${done.signal}` : `exit code ${done.status}`);
    throw new SetupError(`\`${command} ${args.join(' ')}\` failed: ${why}`);
  }
}

export const has = (command) => spawnSync('sh', ['-c', `command -v ${command}`], { stdio: 'ignore' }).status === 0;

function* walk(path) {
  const info = statSync(path, { throwIfNoEntry: false });
  if (!info) return;
  if (!info.isDirectory()) {
    yield [path, info];
    return;
  }
  for (const name of readdirSync(path).sort()) {
    if (name !== 'node_modules' && name !== 'target') yield* walk(join(path, name));
  }
}

/** Changes when a file below the paths changes (size or time of change). */
export function fingerprint(paths, extra = '') {
  const hash = createHash('sha1').update(extra);
  for (const path of paths) {
    for (const [file, info] of walk(join(root, path))) hash.update(`${file}\0${info.size}\0${info.mtimeMs}\n`);
  }
  return hash.digest('hex');
}

const stampFile = join(root, 'build/stamp.json');

/** What the last successful set-up and build saw. */
export function readStamp() {
  try {
    return JSON.parse(readFileSync(stampFile, 'utf8'));
  } catch {
    return {};
  }
}

export function writeStamp(changes) {
  mkdirSync(dirname(stampFile), { recursive: true });
  writeFileSync(`${stampFile}.tmp`, JSON.stringify({ ...readStamp(), ...changes }, null, 1));
  renameSync(`${stampFile}.tmp`, stampFile);
}
