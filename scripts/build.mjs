/** Builds what is out of date: native addons, then TypeScript. */
import { copyFileSync, cpSync, existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { fingerprint, guard, readStamp, root, run, say, writeStamp } from './lib/shell.mjs';
import { setup } from './setup.mjs';

const addons = ['imaging', 'engine'];

const states = () => ({
  native: fingerprint(['native', 'Cargo.toml', 'Cargo.lock', '.cargo/config.toml']),
  typescript: fingerprint(
    ['src', 'test', 'bench', 'tsconfig.json', 'tsconfig.build.json', 'package-lock.json'].filter((p) =>
      existsSync(join(root, p)),
    ),
  ),
});

function buildNative() {
  say('Building native code (the first time takes some minutes)');
  run('cargo', ['build', '--release', ...addons.flatMap((name) => ['-p', `oarlock-addon-${name}`])]);
  mkdirSync(join(root, 'build'), { recursive: true });
  for (const name of addons) {
    const target = join(root, `build/oarlock-${name}.node`);
    // A running server may have the old file mapped: replace it, never write into it.
    copyFileSync(
      join(process.env.CARGO_TARGET_DIR ?? join(root, 'target'), `release/liboarlock_addon_${name}.so`),
      `${target}.tmp`,
    );
    renameSync(`${target}.tmp`, target);
  }
}

/** Tests and benchmarks are compiled only where their packages are installed. */
function buildTypescript(dev) {
  say('Building TypeScript');
  if (!existsSync(join(root, 'dist'))) {
    for (const name of ['tsconfig', 'tsconfig.build']) rmSync(join(root, `build/${name}.tsbuildinfo`), { force: true });
  }
  const project = dev ? 'tsconfig.json' : 'tsconfig.build.json';
  run(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', project]);
  if (existsSync(join(root, 'src/web'))) {
    rmSync(join(root, 'dist/src/web'), { recursive: true, force: true });
    cpSync(join(root, 'src/web'), join(root, 'dist/src/web'), { recursive: true });
  }
}

/** Whether a build would do nothing. */
export function isCurrent() {
  const stamp = readStamp();
  const now = states();
  return (
    stamp.native === now.native &&
    stamp.typescript === now.typescript &&
    addons.every((name) => existsSync(join(root, `build/oarlock-${name}.node`))) &&
    existsSync(join(root, 'dist/src/main.js'))
  );
}

export async function build({ dev = false } = {}) {
  const stamp = readStamp();
  const now = states();
  if (stamp.native !== now.native || !addons.every((name) => existsSync(join(root, `build/oarlock-${name}.node`)))) {
    buildNative();
    writeStamp({ native: states().native });
  }
  if (
    stamp.typescript !== now.typescript ||
    (dev && !stamp.typescriptDev) ||
    !existsSync(join(root, 'dist/src/main.js'))
  ) {
    buildTypescript(dev);
    writeStamp({ typescript: states().typescript, typescriptDev: dev });
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  guard(async () => {
    await setup();
    await build();
  });
}
