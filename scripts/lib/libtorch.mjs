/** Finds or fetches libtorch and points cargo at it. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { root, run, SetupError, say } from './shell.mjs';

const pinned = JSON.parse(readFileSync(join(root, 'scripts/libtorch.json'), 'utf8'));

export const cacheDir =
  process.env.OARLOCK_CACHE ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'oarlock');
const wheelDir = join(cacheDir, `libtorch-${pinned.torch}`);

/** Version of a libtorch or torch package folder, or null when it cannot be told. */
function versionOf(folder) {
  for (const [file, pattern] of [
    ['build-version', /^([\d.]+)/],
    ['version.py', /__version__ = '([\d.]+)/],
  ]) {
    const path = join(folder, file);
    if (existsSync(path)) return pattern.exec(readFileSync(path, 'utf8'))?.[1] ?? null;
  }
  return null;
}

/** A folder with `include` and `lib` of exactly the pinned release, from the user or from an installed torch. */
function installed() {
  const given = process.env.LIBTORCH;
  if (given) {
    const version = versionOf(given);
    if (version !== pinned.torch) {
      throw new SetupError(
        `LIBTORCH=${given} holds libtorch ${version ?? '(unknown version)'}, but ${pinned.torch} is needed.\nUnset LIBTORCH to have the right one fetched.`,
      );
    }
    return given;
  }
  const probe =
    "import importlib.util as u; s=u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')";
  const folder = spawnSync('python3', ['-c', probe], { encoding: 'utf8' }).stdout?.trim();
  if (folder && versionOf(folder) === pinned.torch && existsSync(join(folder, 'include/ATen/ATen.h'))) return folder;
  return null;
}

export const hasNvidiaDriver = () => existsSync('/proc/driver/nvidia/version') || existsSync('/dev/nvidiactl');

/** The links give the linker only the CPU half, so that one build serves machines with and without CUDA. */
function linkFolder(torch) {
  const own = torch.startsWith(wheelDir);
  const folder = own
    ? join(wheelDir, 'link')
    : join(cacheDir, `link-${pinned.torch}`, Buffer.from(torch).toString('hex').slice(-24));
  const lib = join(folder, 'lib');
  if (!existsSync(join(lib, 'libtorch.so'))) {
    const temporary = `${folder}.${process.pid}`;
    mkdirSync(join(temporary, 'lib'), { recursive: true });
    for (const [name, target] of [
      ['libtorch_cpu.so', 'libtorch_cpu.so'],
      ['libc10.so', 'libc10.so'],
      ['libtorch.so', 'libtorch_cpu.so'],
    ]) {
      symlinkSync(join(torch, 'lib', target), join(temporary, 'lib', name));
    }
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(dirname(folder), { recursive: true });
    renameSync(temporary, folder);
  }
  return folder;
}

/** Cargo reads this file, so plain `cargo test` and editors work after set-up too. */
function writeCargoConfig(torch) {
  const text = `# Written by npm run setup.\n[env]\nLIBTORCH = ${JSON.stringify(torch)}\nLIBTORCH_LIB = ${JSON.stringify(linkFolder(torch))}\n`;
  const file = join(root, '.cargo/config.toml');
  if (existsSync(file) && readFileSync(file, 'utf8') === text) return;
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
}

export function setupLibtorch() {
  let torch = installed();
  if (!torch) {
    torch = join(wheelDir, 'torch');
    const groups = hasNvidiaDriver() && process.env.OARLOCK_CUDA !== '0' ? ['base', 'cuda'] : ['base'];
    for (const group of groups) {
      const missing = pinned[group].filter((w) => !existsSync(join(wheelDir, `.${w.package}-${w.version}.done`)));
      if (missing.length === 0) continue;
      const megabytes = missing.reduce((sum, w) => sum + (w.x86_64?.size ?? 0), 0) / 1e6;
      say(
        `Fetching libtorch ${pinned.torch}${group === 'cuda' ? ' for CUDA' : ''} (${megabytes.toFixed(0)} MB, once for all checkouts) into ${wheelDir}`,
      );
      run('python3', [join(root, 'scripts/fetch_wheels.py'), join(root, 'scripts/libtorch.json'), group, wheelDir]);
    }
  }
  writeCargoConfig(torch);
}
