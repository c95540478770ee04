/** Records the shapes of the PaddleX reference server's answers into test/golden/reference.json: `node dist/bench/record-reference.js`. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { colourFolder } from '../test/lib/pictures.js';
import { referenceCalls, shape } from '../test/lib/reference-calls.js';
import { type Json, send } from '../test/lib/server.js';
import { root } from './lib/peers.js';
import { startReference } from './lib/servers.js';

const base = mkdtempSync(join(tmpdir(), 'oarlock-record-'));
const images = colourFolder(join(base, 'images'), ['a', 'b'], 20);
const port = 18_082;
const server = await startReference(join(base, 'workspace'), port);
const recorded: Json[] = [];
try {
  for (const call of referenceCalls(images, join(base, 'workspace'))) {
    let answer: Json;
    for (;;) {
      answer = JSON.parse((await send(port, call.method, call.path, call.body)).body.toString()) as Json;
      if (!call.until || call.until.values.includes(answer[call.until.field])) break;
      await sleep(300);
    }
    recorded.push({
      call: `${call.method} ${call.path}`,
      keys: Object.keys(call.body),
      answer: shape(answer),
      ...(answer.status === 1 ? {} : { status: answer.status }),
    });
  }
} finally {
  await server.stop();
  rmSync(base, { recursive: true, force: true });
}
writeFileSync(join(root, 'test/golden/reference.json'), `${JSON.stringify(recorded, null, 1)}\n`);
