/** `npm start`: sets up and builds what is missing, then runs the server in this process. */
import { build, isCurrent } from './build.mjs';
import { guard } from './lib/shell.mjs';
import { setup } from './setup.mjs';

guard(async () => {
  await setup();
  if (!isCurrent()) await build();
  await import('../dist/src/main.js');
});
