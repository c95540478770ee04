import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { encode } from './codec.js';
import { DamagedStoreError, type OpenedStore, openStore } from './open.js';
import { takeOwnership, WorkspaceInUseError } from './owner.js';
import { openDatabase } from './store.js';
import { datasetRecord, silentLog } from './testing/records.js';

const writer = fileURLToPath(new URL('./testing/writer.js', import.meta.url));
const fullDisk = fileURLToPath(new URL('./testing/full-disk.js', import.meta.url));
let workspace: string;
let storeFolder: string;
let database: string;
beforeEach(() => {
  workspace = mkdtempSync(join(tmpdir(), 'oarlock-ws-'));
  storeFolder = join(workspace, '.oarlock/store');
  database = join(storeFolder, 'oarlock.mdb');
});
afterEach(() => rmSync(workspace, { recursive: true, force: true }));
const openIt = (): Promise<OpenedStore> => openStore({ workspace, log: silentLog });

describe('opening a workspace', () => {
  it('refuses one that another living process owns, and takes over from a dead one', async () => {
    const child = spawn(process.execPath, [writer, workspace, 'x'], { stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      await once(child.stdout, 'data');
      await assert.rejects(openIt(), WorkspaceInUseError);
    } finally {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    const opened = await openIt();
    assert.deepEqual(opened.notices, []);
    await assert.rejects(openIt(), WorkspaceInUseError);
    await opened.close();
  });

  it('does not take a process that got the same pid for the owner', async () => {
    const opened = await openIt();
    await opened.close();
    const path = join(workspace, '.oarlock/owner.json');
    const owner = {
      pid: process.ppid,
      startTime: '1',
      bootId: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
      host: hostname(),
      token: 'stranger',
      since: '',
    };
    writeFileSync(path, JSON.stringify(owner));
    const again = await openIt();
    await again.close();
    assert.ok(!existsSync(path));
  });

  it('lets one of many starters win', async () => {
    const outcomes = await Promise.allSettled(
      Array.from({ length: 8 }, () => takeOwnership(join(workspace, '.oarlock'), workspace)),
    );
    assert.equal(outcomes.filter((outcome) => outcome.status === 'fulfilled').length, 1);
  });

  it('says what to do when a newer program wrote the database', async () => {
    const opened = await openIt();
    await opened.store.change((tx) => tx.put('dataset', datasetRecord('D0001')));
    await opened.close();
    const db = openDatabase(database);
    await db.put('!format', encode('!format', 99));
    await db.close();
    await assert.rejects(openIt(), /newer version/);
  });
});

/** Everything the child had acknowledged when it died. */
async function runAndKill(seed: number, afterMs: number): Promise<string[]> {
  const child = spawn(process.execPath, [writer, workspace, String(seed)], { stdio: ['ignore', 'pipe', 'inherit'] });
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (text) => {
    said += text;
  });
  await once(child.stdout, 'data');
  await new Promise((resolve) => setTimeout(resolve, afterMs));
  child.kill('SIGKILL');
  await once(child, 'close');
  const lines = said.split('\n');
  return lines.slice(1, -1); // the first says "open", the last may be cut off
}

describe('promise 13: every acknowledged write survives kill -9', () => {
  it('under load, again and again', { timeout: 120_000 }, async () => {
    const created = new Map<string, string>();
    const newest = new Map<string, number>();
    let acknowledged = 0;
    for (let round = 0; round < 20; round++) {
      for (const line of await runAndKill(round, 20 + Math.random() * 120)) {
        const [what, id, value] = line.split(' ') as [string, string, string];
        acknowledged++;
        if (what === 'created') {
          assert.ok(!created.has(id), `${id} was given twice`);
          created.set(id, value);
        } else newest.set(id, round * 1e9 + Number(value));
      }
      const opened = await openIt();
      assert.deepEqual(opened.notices, []);
      for (const [id, mark] of created) assert.equal(opened.store.get('dataset', id)?.name, mark, id);
      for (const [id, value] of newest) {
        if (value < round * 1e9) continue; // overwritten by a later round
        const seen = Number(opened.store.get('dataset', id)?.desc.split(':')[1]);
        assert.ok(seen >= value - round * 1e9, `${id}: ${seen} < ${value - round * 1e9}`);
      }
      await opened.close();
    }
    assert.ok(acknowledged > 500, `only ${acknowledged} writes were acknowledged`);
  });
});

describe('promise 14: a damaged database never stops the server from starting or saying why', () => {
  const fill = async (count: number): Promise<void> => {
    const opened = await openIt();
    for (let n = 0; n < count; n++) {
      await opened.store.change((tx) =>
        tx.put('dataset', { ...datasetRecord(tx.nextId('dataset')), name: `set ${n}` }),
      );
    }
    await opened.close(); // leaves a backup
  };
  const damages: Record<string, (bytes: Buffer) => Buffer> = {
    'cut in half': (bytes) => bytes.subarray(0, Math.floor(bytes.length / 2 / 4096) * 4096),
    'a few bytes long': (bytes) => bytes.subarray(0, 100),
    empty: () => Buffer.alloc(0),
    'meta pages zeroed': (bytes) => bytes.fill(0, 0, 8192),
    'random text': (bytes) => bytes.fill('not a database '),
    'a record changed': (bytes) => {
      const text = bytes.toString('latin1');
      assert.ok(text.includes('"name":"set 7"'));
      return Buffer.from(text.replaceAll('"name":"set 7"', '"name":"set 9"'), 'latin1');
    },
    'every page after the first zeroed': (bytes) => bytes.fill(0, 8192),
    'bytes flipped everywhere': (bytes) => {
      for (let at = 8192 + 17; at < bytes.length; at += 97) bytes[at] = (bytes[at] as number) ^ 0x55;
      return bytes;
    },
  };
  for (const [name, damage] of Object.entries(damages)) {
    it(`${name}: the backup is opened and the damaged file kept`, { timeout: 60_000 }, async () => {
      await fill(12);
      writeFileSync(database, damage(readFileSync(database)));
      const opened = await openIt();
      try {
        if (opened.store.list('dataset').length !== 12) assert.fail('records are missing');
        assert.equal(opened.store.get('dataset', 'D0008')?.name, 'set 7');
        assert.match(opened.notices.join(), /damaged/);
        assert.equal(readdirSync(storeFolder).filter((file) => /^damaged-[\d-]+\.mdb$/.test(file)).length, 1);
        const id = await opened.store.change((tx) => tx.nextId('dataset'));
        assert.equal(id, 'D0013');
      } finally {
        await opened.close();
      }
      const again = await openIt();
      assert.deepEqual(again.notices, []);
      await again.close();
    });
  }

  it('random damage without a backup: what can be read is saved, or the start is refused with advice', {
    timeout: 120_000,
  }, async () => {
    let random = 1;
    const next = (below: number): number => {
      random = (random * 48271) % 2147483647;
      return random % below;
    };
    for (let round = 0; round < 6; round++) {
      rmSync(join(workspace, '.oarlock'), { recursive: true, force: true });
      await fill(30);
      for (const file of readdirSync(storeFolder)) if (file.startsWith('backup')) rmSync(join(storeFolder, file));
      const bytes = readFileSync(database);
      for (let n = 0; n < 40; n++) bytes[next(bytes.length)] = next(256);
      writeFileSync(database, bytes);
      try {
        const opened = await openIt();
        for (const record of opened.store.list('dataset')) assert.match(record.name, /^set \d+$/);
        await opened.close();
      } catch (error) {
        assert.ok(error instanceof DamagedStoreError, String(error));
        assert.match(error.message, /move the folder/);
        assert.deepEqual(readFileSync(database), bytes, 'a file that cannot be replaced stays untouched');
      }
    }
  });

  it('opens the newest backup when the file is gone', async () => {
    await fill(3);
    rmSync(database);
    const opened = await openIt();
    assert.equal(opened.store.list('dataset').length, 3);
    assert.match(opened.notices.join(), /missing/);
    await opened.close();
  });

  it('goes on to an older backup when the newest is damaged too', async () => {
    await fill(2);
    await new Promise((resolve) => setTimeout(resolve, 1100)); // backups are named by the second
    await fill(2);
    const backups = readdirSync(storeFolder)
      .filter((file) => file.startsWith('backup'))
      .sort();
    assert.equal(backups.length, 2);
    truncateSync(join(storeFolder, backups[1] as string), 5000);
    truncateSync(database, 5000);
    const opened = await openIt();
    assert.equal(opened.store.list('dataset').length, 2);
    await opened.close();
  });
});

describe('promise 15: a disk that takes no more', () => {
  it('refuses the change, keeps what was acknowledged and shows nothing else', async () => {
    // Writing beyond the limit fails as on a full disk; without the trap it would end the process.
    const limited = `trap '' XFSZ; ulimit -f 1000; exec "$0" "$@"`;
    const child = spawnSync('bash', ['-c', limited, process.execPath, fullDisk, workspace], { encoding: 'utf8' });
    const said = JSON.parse(child.stdout) as Record<string, number | string | boolean>;
    const { written } = said;
    assert.ok(typeof written === 'number' && written > 50, child.stderr);
    assert.deepEqual(said, {
      written,
      listed: written,
      code: 'resource_exhausted',
      retryable: true,
      seen: false,
      unhandled: 0,
    });
    const opened = await openIt();
    assert.deepEqual(opened.notices, []);
    assert.equal(opened.store.list('dataset').length, written);
    const id = await opened.store.change((tx) => tx.nextId('dataset'));
    assert.equal(id, `D${String(written + 1).padStart(4, '0')}`);
    await opened.close();
  });
});
