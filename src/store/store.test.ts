import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { checksums, decode, encode } from './codec.js';
import { Store } from './store.js';
import { datasetRecord, taskRecord } from './testing/records.js';

describe('records in the database', () => {
  it('carry a checksum over key and content', () => {
    const text = encode('task/T0001', { a: 'ü<' });
    assert.deepEqual(decode('task/T0001', text), { a: 'ü<' });
    assert.throws(() => decode('task/T0002', text), /damaged/);
    assert.throws(() => decode('task/T0001', text.replace('a', 'b')), /damaged/);
    assert.throws(() => decode('task/T0001', ''), /damaged/);
  });
  it('have the same checksum with and without the runtime support for it', () => {
    assert.equal(checksums.table('123456789'), 0xcbf43926); // check value of CRC-32/ISO-HDLC
    assert.equal(checksums.native('123456789'), 0xcbf43926);
    assert.equal(checksums.table('Größe 图'), checksums.native('Größe 图'));
  });
});

describe('store', () => {
  let folder: string;
  let path: string;
  let store: Store;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'oarlock-store-'));
    path = join(folder, 'oarlock.mdb');
    store = new Store(path, { workspace: folder });
  });
  afterEach(async () => {
    await store.close();
    rmSync(folder, { recursive: true });
  });
  const reopen = async (): Promise<void> => {
    await store.close();
    store = new Store(path, { workspace: folder });
  };
  const create = (name: string): Promise<string> =>
    store.change((tx) => {
      const id = tx.nextId('dataset');
      tx.put('dataset', { ...datasetRecord(id), name });
      return id;
    });

  it('undoes a refused unit of work alone, ids included', async () => {
    const refused = store.change((tx) => {
      const id = tx.nextId('dataset');
      tx.put('dataset', datasetRecord(id));
      tx.addCurve('T1', [{ series: 'train', x: 1, values: { loss: 1 }, at: 0 }]);
      throw new Error('no');
    });
    const kept = create('kept');
    await assert.rejects(refused, /no/);
    assert.equal(await kept, 'D0001');
    assert.deepEqual(
      store.list('dataset').map((record) => record.name),
      ['kept'],
    );
    assert.deepEqual(store.curve('T1'), []);
  });
  it('refuses asynchronous work', async () => {
    await assert.rejects(
      store.change(async (tx) => tx.put('dataset', datasetRecord('D0009'))),
      /synchronous/,
    );
    assert.equal(store.get('dataset', 'D0009'), undefined);
  });
  it('refuses changes after closing', async () => {
    const other = new Store(join(folder, 'other.mdb'));
    await other.close();
    await assert.rejects(
      other.change(() => 1),
      { code: 'not_ready' },
    );
  });
  it('keeps records and counters over a restart', async () => {
    await create('one');
    const id = await create('two');
    await store.change((tx) => tx.remove('dataset', id));
    await reopen();
    assert.deepEqual(
      store.list('dataset').map((record) => [record.id, record.name]),
      [['D0001', 'one']],
    );
    assert.equal(await create('three'), 'D0003');
  });
  it('shows a unit of work what it has done itself', async () => {
    await create('one');
    await store.change((tx) => {
      tx.put('dataset', { ...datasetRecord('D0001'), name: 'new' });
      tx.put('dataset', datasetRecord('D0002'));
      assert.equal(tx.get('dataset', 'D0001')?.name, 'new');
      assert.deepEqual(
        tx.list('dataset').map((record) => record.name),
        ['new', 'set'],
      );
      tx.remove('dataset', 'D0001');
      assert.equal(tx.get('dataset', 'D0001'), undefined);
      assert.equal(store.get('dataset', 'D0001')?.name, 'one');
    });
    assert.deepEqual(
      store.list('dataset').map((record) => record.id),
      ['D0002'],
    );
  });
  it('gives each of many at once its own id', async () => {
    const ids = await Promise.all(Array.from({ length: 300 }, (_, n) => create(`set ${n}`)));
    assert.equal(new Set(ids).size, 300);
    await reopen();
    assert.equal(store.list('dataset').length, 300);
  });
  it('orders ids by number and writes those from 10000 on without padding', async () => {
    await store.change((tx) => tx.reserveIds('dataset', 9998));
    assert.deepEqual([await create('a'), await create('b')], ['D9999', 'D10000']);
    await store.change((tx) => tx.reserveIds('dataset', 5));
    assert.equal(await create('c'), 'D10001');
    assert.deepEqual(
      store.list('dataset').map((record) => record.id),
      ['D9999', 'D10000', 'D10001'],
    );
  });
  it('does not give an id whose folder is taken', async () => {
    mkdirSync(join(folder, 'datasets/D0001'), { recursive: true });
    assert.equal(await create('a'), 'D0002');
  });
  it('changes revision and list of the touched kind only', async () => {
    const tasks = store.list('task');
    const before = [store.revision('dataset'), store.revision('task'), store.revision('dataset', 'task')];
    await create('a');
    assert.equal(store.list('task'), tasks);
    assert.equal(store.list('dataset'), store.list('dataset'));
    assert.notEqual(store.revision('dataset'), before[0]);
    assert.equal(store.revision('task'), before[1]);
    assert.notEqual(store.revision('dataset', 'task'), before[2]);
  });
  it('keeps a bounded curve that spans the whole training', async () => {
    await store.change((tx) => tx.put('task', taskRecord('T0001', 'P0001')));
    const point = (x: number) => ({ series: 'train' as const, x, values: { loss: 1 / x }, at: x });
    for (let x = 1; x <= 9000; x += 500) {
      await store.change((tx) =>
        tx.addCurve(
          'T0001',
          Array.from({ length: 500 }, (_, n) => point(x + n)),
        ),
      );
    }
    await store.change((tx) => tx.addCurve('T0001', [{ ...point(3), series: 'eval' }]));
    await store.change((tx) => tx.addCurve('T00012', [point(1)]));
    const curve = store.curve('T0001').filter((entry) => entry.series === 'train');
    assert.ok(curve.length > 1500 && curve.length <= 4000, String(curve.length));
    assert.equal(curve[0]?.x, 1);
    assert.ok((curve.at(-1)?.x ?? 0) > 8990);
    assert.equal(store.curve('T0001').at(0)?.series, 'eval');
    await store.change((tx) => {
      tx.cutCurve('T0001', { train: 5000, eval: 4 });
      tx.addCurve('T0001', [point(5003)]);
    });
    const cut = store.curve('T0001');
    assert.deepEqual([cut.at(-1)?.x, cut.filter((entry) => entry.series === 'eval').length], [5003, 1]);
    assert.ok(cut.every((entry) => entry.x < 5000 || entry.x === 5003));
    await store.change((tx) => {
      tx.clearCurve('T0001');
      tx.addCurve('T0001', [point(7)]);
    });
    await reopen();
    assert.deepEqual(
      store.curve('T0001').map((entry) => entry.x),
      [7],
    );
    assert.equal(store.curve('T00012').length, 1);
  });
});
