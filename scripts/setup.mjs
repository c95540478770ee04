/** Makes a fresh machine ready to build: tools, packages, libtorch. Does nothing when all is there. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { cacheDir, hasNvidiaDriver, setupLibtorch } from './lib/libtorch.mjs';
import { fingerprint, guard, has, readStamp, root, run, SetupError, say, writeStamp } from './lib/shell.mjs';

const systemPackages = [
  ['g++', 'g++'],
  ['make', 'make'],
  ['cmake', 'cmake'],
  ['nasm', 'nasm'],
  ['python3', 'python3'],
];

function checkTools() {
  const major = Number(process.versions.node.split('.')[0]);
  if (major < 20) throw new SetupError(`Node ${process.versions.node} is too old: Oarlock needs Node 20 or newer.`);
  if (!has('cargo')) {
    throw new SetupError('Rust is missing: install it with rustup (https://rustup.rs), then run this command again.');
  }
  const missing = systemPackages.filter(([command]) => !has(command)).map(([, name]) => name);
  if (missing.length === 0) return;
  const update = ['apt-get', 'update', '-qq'];
  const install = ['apt-get', 'install', '-y', '-qq', '--no-install-recommends', ...missing];
  if (process.getuid?.() === 0 && has('apt-get')) {
    say(`Installing system packages: ${missing.join(' ')}`);
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    run(update[0], update.slice(1), { env });
    run(install[0], install.slice(1), { env });
    return;
  }
  throw new SetupError(
    `These system packages are missing: ${missing.join(' ')}. Install them with\n\n  sudo ${update.join(' ')} && sudo ${install.join(' ')}\n\nthen run this command again.`,
  );
}

/** Packages for running; `dev` adds linters and test data. */
function installPackages(dev) {
  const wanted = fingerprint(['package-lock.json'], `${process.versions.modules}`);
  const stamp = readStamp();
  if (stamp.packages === wanted && (stamp.packagesDev || !dev) && existsSync(join(root, 'node_modules'))) return;
  say('Installing npm packages');
  run('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error', ...(dev ? [] : ['--omit=dev'])], {
    env: { ...process.env, ONNXRUNTIME_NODE_INSTALL_CUDA: 'skip', NODE_ENV: '' },
  });
  writeStamp({ packages: wanted, packagesDev: dev });
}

/** Set-up depends on these only; when nothing of it changed there is nothing to do. */
const setupState = () =>
  fingerprint(['package-lock.json', 'scripts'], `${cacheDir} ${process.env.LIBTORCH ?? ''} ${hasNvidiaDriver()}`);

export async function setup({ dev = false } = {}) {
  const state = setupState();
  const stamp = readStamp();
  const cargoConfig = join(root, '.cargo/config.toml');
  const linked = existsSync(cargoConfig) && /LIBTORCH_LIB = "(.*)"/.exec(readFileSync(cargoConfig, 'utf8'))?.[1];
  const whole = linked && existsSync(join(linked, 'lib/libtorch_cpu.so')) && existsSync(join(root, 'node_modules'));
  if (whole && stamp.setup === state && (stamp.packagesDev || !dev)) return;
  checkTools();
  installPackages(dev);
  setupLibtorch();
  writeStamp({ setup: setupState() });
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) guard(() => setup({ dev: true }));
