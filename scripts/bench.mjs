/** `npm run bench`: builds everything, the engine's own binary included, then compares with the peers. */
import { build } from './build.mjs';
import { guard, run } from './lib/shell.mjs';
import { setup } from './setup.mjs';

guard(async () => {
  await setup({ dev: true });
  await build({ dev: true });
  // Together with the addon, so that both see the same features of their dependencies and nothing is built twice.
  run('cargo', ['build', '--release', '-p', 'oarlock-addon-engine', '-p', 'oarlock-engine']);
  run('cargo', ['build', '--release', '-p', 'oarlock-datasets', '--example', 'data_rate']);
  run('cargo', ['build', '--release', '-p', 'oarlock-metrics', '--examples']);
  await import('../dist/bench/main.js');
});
