/** `npm run bench`: builds everything, the engine's own binary included, then compares with the peers. */
import { build } from './build.mjs';
import { guard, run } from './lib/shell.mjs';
import { setup } from './setup.mjs';

guard(async () => {
  await setup();
  await build();
  run('cargo', ['build', '--release', '-p', 'oarlock-engine', '--bins']);
  await import('../dist/bench/main.js');
});
