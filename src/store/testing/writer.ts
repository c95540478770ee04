/** Test child: opens the workspace's store and writes as fast as it can, printing what was acknowledged, until it is killed. */
import { openStore } from '../open.js';
import { datasetRecord, silentLog } from './records.js';

const [workspace, seed] = process.argv.slice(2);
const opened = await openStore({ workspace: workspace as string, log: silentLog, backupIntervalMs: 50 });
process.stdout.write('open\n');
let n = 0;
const write = async (lane: number): Promise<void> => {
  for (;;) {
    const mark = `${seed}-${lane}-${n++}`;
    const kind = n % 3;
    const said = await opened.store.change((tx) => {
      if (kind === 0) {
        const id = tx.nextId('dataset');
        tx.put('dataset', { ...datasetRecord(id), name: mark });
        return `created ${id} ${mark}`;
      }
      const id = `D000${(n % 5) + 1}`;
      const record = tx.get('dataset', id);
      if (record === undefined) return '';
      tx.put('dataset', { ...record, desc: `${lane}:${n}` });
      tx.addCurve(id, [{ series: 'train', x: n, values: { loss: n }, at: n }]);
      return `set ${id} ${n}`;
    });
    if (said !== '') process.stdout.write(`${said}\n`);
  }
};
await Promise.all([0, 1, 2].map(write));
