/** `node scripts/run.mjs dist/…/tool.js [arguments]`: runs a built command-line tool, building it first when needed. */
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { build } from './build.mjs';
import { guard, root } from './lib/shell.mjs';
import { setup } from './setup.mjs';

guard(async () => {
  await setup();
  await build();
  const tool = join(root, process.argv[2]);
  process.argv.splice(1, 2, tool);
  await import(pathToFileURL(tool).href);
});
