/** Installs the peers into the benchmark's own folder, once. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export const root = process.cwd();
const folder = process.env.OARLOCK_BENCH_PEERS ?? join(root, 'bench/.peers');

export type Peer = 'torch' | 'opencv' | 'paddle' | 'paddleslim' | 'paddlex' | 'photographs';

function run(command: string, args: string[]): void {
  const done = spawnSync(command, args, { stdio: ['ignore', 2, 2] });
  if (done.status !== 0) throw new Error(`${command} ${args.join(' ')} failed`);
}

/** Python interpreter of an installed peer. */
export function peer(name: Peer): string {
  const venv = join(folder, name);
  const python = join(venv, 'bin/python');
  const stamp = join(venv, '.installed');
  const wanted = JSON.stringify(JSON.parse(readFileSync(join(root, 'bench/peers/requirements.json'), 'utf8'))[name]);
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return python;
  process.stderr.write(`Installing the peer ${name} into ${venv}\n`);
  mkdirSync(folder, { recursive: true });
  run('python3', ['-m', 'venv', '--clear', venv]);
  const { noDeps, packages } = JSON.parse(wanted) as { noDeps: string[]; packages: string[] };
  const pip = ['-m', 'pip', 'install', '-q', '--disable-pip-version-check'];
  run(python, [...pip, ...packages]);
  if (noDeps.length > 0) run(python, [...pip, '--no-deps', ...noDeps, ...(name === 'torch' ? cudaPackages() : [])]);
  writeFileSync(stamp, wanted);
  return python;
}

/** Folder of an installed peer's packages, for a peer that needs those of another. */
export function packages(name: Peer): string {
  const python = peer(name);
  const done = spawnSync(python, ['-c', 'import sysconfig; print(sysconfig.get_paths()["purelib"])'], {
    encoding: 'utf8',
  });
  if (done.status !== 0) throw new Error(`${python} does not say where its packages are`);
  return done.stdout.trim();
}

/** Python's torch loads its CUDA libraries even on CPU-only machines. */
function cudaPackages(): string[] {
  const pinned = JSON.parse(readFileSync(join(root, 'scripts/libtorch.json'), 'utf8')) as Record<
    'base' | 'cuda',
    { package: string; version: string }[]
  >;
  return [...pinned.base, ...pinned.cuda]
    .filter((wheel) => wheel.package !== 'torch')
    .map((wheel) => `${wheel.package}==${wheel.version}`);
}
