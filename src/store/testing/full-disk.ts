/** Test child, started with a limit on file sizes: writes until that is refused, and says what it then sees. */
import { openStore } from '../open.js';
import { datasetRecord, silentLog } from './records.js';

const unhandled: unknown[] = [];
process.on('unhandledRejection', (error) => unhandled.push(error));
const [workspace] = process.argv.slice(2);
const { store } = await openStore({ workspace: workspace as string, log: silentLog });
let written = 0;
let refusal: { code?: string; retryable?: boolean } = {};
let next = '';
for (; written < 5000; written++) {
  try {
    await store.change((tx) => {
      const id = tx.nextId('dataset');
      next = id;
      tx.put('dataset', { ...datasetRecord(id), desc: 'x'.repeat(2000) });
    });
  } catch (error) {
    refusal = error as typeof refusal;
    break;
  }
}
const { code, retryable } = refusal;
const listed = store.list('dataset').length;
const seen = store.get('dataset', next) !== undefined;
process.stdout.write(`${JSON.stringify({ written, listed, code, retryable, seen, unhandled: unhandled.length })}\n`);
process.exit();
