import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { DatasetsApi } from '../../domain/contracts.js';
import { TestServer } from '../testing/client.js';
import { datasetRoutes } from './dataset.js';

/** Details as the domain keeps them: JSON text, here with `files` file names. */
const detailsOf = (files: number): Buffer =>
  Buffer.from(JSON.stringify({ labels: ['a'], train_files: Array.from({ length: files }, (_, i) => `a/${i}é.png`) }));

const texts: Record<string, Buffer | null> = { D0001: detailsOf(10), D0002: detailsOf(200_000), D0003: null };
let server: TestServer;
before(async () => {
  const datasets = { detailsJson: async (did: string) => texts[did] ?? null } as unknown as DatasetsApi;
  server = await TestServer.start({ routes: datasetRoutes({ datasets, store: { revision: () => '' } }) });
});
after(() => server.stop());

test('details are one JSON object with its length announced, whether they are kept or sent in pieces', async () => {
  assert.ok((texts.D0002 as Buffer).length > 2 ** 20);
  for (const did of ['D0001', 'D0002', 'D0003']) {
    const text = texts[did];
    for (let turn = 0; turn < 2; turn += 1) {
      const reply = await server.ask(`/dataset/details?did=${did}`);
      assert.equal(reply.status, 200);
      assert.deepEqual(reply.json, { status: 1, details: text == null ? null : JSON.parse(text.toString()) });
      assert.equal(Number(reply.headers['content-length']), Buffer.byteLength(reply.text));
      assert.match(String(reply.headers['content-type']), /^application\/json/);
      const head = await server.ask(`/dataset/details?did=${did}`, { method: 'HEAD' });
      assert.deepEqual([head.text, head.headers['content-length']], ['', reply.headers['content-length']]);
    }
  }
});
