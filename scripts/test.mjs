/** `npm test`: sets up, builds, checks style, then runs every Rust and TypeScript test. `npm test -- rust|ts|lint` runs a part. */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { build } from './build.mjs';
import { guard, root, SetupError, say } from './lib/shell.mjs';
import { setup } from './setup.mjs';

function testFiles(folder) {
  const found = [];
  for (const entry of readdirSync(join(root, folder), { withFileTypes: true, recursive: true })) {
    if (entry.isFile() && entry.name.endsWith('.test.js')) found.push(join(entry.parentPath ?? entry.path, entry.name));
  }
  return found.sort();
}

function show(title, command, args, env = {}) {
  say(`\n== ${title}`);
  const done = spawnSync(command, args, {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, ...env },
  });
  if (done.status !== 0) throw new SetupError(`${title} failed`);
}

guard(async () => {
  const parts = process.argv.slice(2).filter((word) => ['lint', 'rust', 'ts'].includes(word));
  const wants = (part) => parts.length === 0 || parts.includes(part);
  await setup({ dev: true });
  if (wants('lint')) {
    show('biome', process.execPath, [join(root, 'node_modules/@biomejs/biome/bin/biome'), 'check', '.']);
    show('rustfmt', 'cargo', ['fmt', '--all', '--check']);
  }
  await build({ dev: true });
  if (wants('lint'))
    show('clippy', 'cargo', ['clippy', '--release', '--workspace', '--all-targets', '--quiet', '--', '-D', 'warnings']);
  if (wants('rust'))
    // Test programs share the cores with each other: threads that wait must sleep.
    show('cargo test', 'cargo', ['test', '--release', '--workspace'], { OMP_WAIT_POLICY: 'passive' });
  if (wants('ts')) {
    // Some tests run the engine's own programs; together with the addon nothing is compiled twice.
    show('engine programs', 'cargo', [
      'build',
      '--release',
      '--quiet',
      '-p',
      'oarlock-addon-engine',
      '-p',
      'oarlock-engine',
    ]);
    const files = [...testFiles('dist/src'), ...testFiles('dist/test')];
    show('node --test', process.execPath, ['--test', '--test-concurrency=2', ...files]);
  }
});
