/** Shapes of our answers against recordings of the PaddleX 2.1 reference (`node dist/bench/record-reference.js`). */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { colourFolder } from './lib/pictures.js';
import { referenceCalls, shape } from './lib/reference-calls.js';
import { type Json, root, TestServer } from './lib/server.js';

/** Places where the contract rules that the answer differs from the reference's, with the ruled type. */
const ruled: Record<string, string> = {
  'GET /project.attr.tasks': 'a list of states as documented; the reference object is in task_status',
  'GET /project/task/params.train.pretrain_weights': 'null where no weights are installed',
  'GET /demo.attr.progress': 'always a number: the page takes text for finished',
};

function compare(where: string, theirs: unknown, ours: unknown, problems: string[]): void {
  if (where in ruled) return;
  if (Array.isArray(theirs)) {
    if (!Array.isArray(ours)) problems.push(`${where}: a list in the reference, ${JSON.stringify(ours)} here`);
    else if (theirs.length > 0 && ours.length > 0) compare(`${where}[]`, theirs[0], ours[0], problems);
  } else if (theirs !== null && typeof theirs === 'object') {
    if (ours === null || typeof ours !== 'object' || Array.isArray(ours)) {
      problems.push(`${where}: an object in the reference, ${JSON.stringify(ours)} here`);
      return;
    }
    for (const [key, value] of Object.entries(theirs)) {
      if (!(key in ours)) problems.push(`${where}.${key} is missing`);
      else compare(`${where}.${key}`, value, (ours as Json)[key], problems);
    }
  } else if (theirs !== ours) {
    problems.push(`${where}: ${theirs} in the reference, ${JSON.stringify(ours)} here`);
  }
}

let server: TestServer;
before(async () => {
  server = await TestServer.start();
});
after(() => server.remove());

it('promise 30: every field of the reference is there with its type', async () => {
  const golden = JSON.parse(readFileSync(join(root, 'test/golden/reference.json'), 'utf8')) as Json[];
  const images = colourFolder(join(server.folder, 'images'), ['a', 'b'], 20);
  const calls = referenceCalls(images, server.workspace);
  assert.equal(calls.length, golden.length);
  const problems: string[] = [];
  for (const [i, call] of calls.entries()) {
    const until = call.until;
    const answer = until
      ? await server.until(60, call.method, call.path, call.body, (a) => until.values.includes(a[until.field]))
      : await server.call(call.method, call.path, call.body);
    const expected = golden[i] as Json;
    assert.equal(answer.status, expected.status ?? 1, `call ${i} ${expected.call}: ${JSON.stringify(answer)}`);
    compare(expected.call, expected.answer, shape(answer), problems);
  }
  assert.deepEqual(problems, []);
});
