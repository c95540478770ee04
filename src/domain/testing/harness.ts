/** Real services and a real store in a temporary workspace, with jobs that the test ends itself. */
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { Logger } from 'pino';
import { createServices, type Services, type ServicesConfig } from '../../services.js';
import type { DatasetDetails } from '../contracts.js';
import type { DomainEvent } from '../events.js';
import { failedOutcome, ScriptedCompute } from './compute.js';

export const quietLog = {
  level: 'silent',
  trace() {},
  debug() {},
  info() {},
  warn() {},
  error() {},
  fatal() {},
} as unknown as Logger;

export const DETAILS: DatasetDetails = {
  fields: ['file_info', 'label_info', 'labels'],
  labels: ['a', 'b<'],
  file_info: { 'a/1.png': 'a', 'b</2.png': 'b<' },
  label_info: { a: ['a/1.png'], 'b<': ['b</2.png'] },
  train_files: [],
  val_files: [],
  test_files: [],
  class_train_file_list: { a: [], 'b<': [] },
  class_val_file_list: { a: [], 'b<': [] },
  class_test_file_list: { a: [], 'b<': [] },
};

export class Harness {
  compute = new ScriptedCompute();
  events: DomainEvent[] = [];

  private constructor(
    public services: Services,
    readonly folder: string,
    readonly config: ServicesConfig,
  ) {}

  static async start(
    t: TestContext | { after(work: () => Promise<void>): void },
    config: Partial<ServicesConfig> = {},
  ) {
    const folder = realpathSync(mkdtempSync(join(tmpdir(), 'oarlock-domain-')));
    const source = join(folder, 'source');
    mkdirSync(join(source, 'a'), { recursive: true });
    const full: ServicesConfig = {
      workspace: join(folder, 'ws'),
      dataRoots: [source, join(folder, 'out')],
      minFreeBytes: 0,
      weightsDirs: [join(folder, 'weights')],
      ...config,
    };
    mkdirSync(join(folder, 'out'));
    const harness = new Harness(undefined as unknown as Services, folder, full);
    await harness.open();
    t.after(async () => {
      await harness.services.close(2000);
      rmSync(folder, { recursive: true, force: true });
    });
    return harness;
  }

  get source(): string {
    return join(this.folder, 'source');
  }

  async open(config: Partial<ServicesConfig> = {}): Promise<void> {
    this.compute = new ScriptedCompute();
    this.compute.calls.splitDataset = (folder: string) => {
      writeFileSync(join(folder, 'labels.txt'), 'a\nb<\n');
      writeFileSync(join(folder, 'test_list.txt'), 'a/1.png 0\nb</1.png 1\nz z/2.x.png 1\n');
      this.writeDetails(folder, { train_files: ['a/1.png'], val_files: ['b</2.png'] });
      return JSON.stringify({ labels: 2, train: 60, val: 20, test: 3 });
    };
    this.compute.calls.inspectImage = () => JSON.stringify({ format: 'png', width: 1, height: 1 });
    this.services = await createServices({ ...this.config, ...config }, { log: quietLog, compute: this.compute });
    this.services.events.subscribe((event) => this.events.push(event));
  }

  /** As after kill -9: nothing is told to anybody, the store is opened again. */
  async crash(config: Partial<ServicesConfig> = {}): Promise<void> {
    const { store } = this.services;
    // What still runs must not write any more, as in a dead process.
    (store as { change: unknown }).change = () => new Promise(() => {});
    await (store as unknown as { close(): Promise<void> }).close();
    rmSync(join(this.config.workspace, '.oarlock/owner.json'), { force: true });
    await this.open(config);
  }

  writeDetails(folder: string, changes: Partial<DatasetDetails> = {}): void {
    writeFileSync(join(folder, 'statis.json'), JSON.stringify({ ...DETAILS, ...changes }));
  }

  /** A dataset that is imported and, if wanted, split. */
  async dataset(split = true): Promise<string> {
    const { datasets } = this.services;
    const { id, path } = await datasets.create({ name: 'set', desc: '', type: 'classification' });
    const { done } = await datasets.import(id, this.source);
    const job = this.compute.job(`${id}/import`);
    job.event({ type: 'progress', stage: 'copying', done: 1, total: 2 });
    this.writeDetails(path);
    job.end({ type: 'import', details: { ...DETAILS }, split: false, files: 2, warnings: [] });
    await done;
    if (split) await datasets.split(id, 0.2, 0.1);
    return id;
  }

  async project(did?: string): Promise<string> {
    const { id } = await this.services.projects.create({ name: 'project', desc: '', type: 'classification' });
    await this.services.workspace.setAttributes('project', id, { did: did ?? (await this.dataset()) });
    return id;
  }

  async task(pid?: string, train: Record<string, unknown> = { num_epochs: 4 }): Promise<string> {
    const { id } = await this.services.tasks.create({ pid: pid ?? (await this.project()), train });
    return id;
  }

  /** A checkpoint folder as the engine leaves it. */
  checkpoint(tid: string, name: string, acc1?: number): string {
    const folder = join(this.services.tasks.get(tid).path, 'output', name);
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'model.safetensors'), 'weights');
    const metrics =
      acc1 === undefined ? '' : `_Attributes:\n  eval_metrics:\n    acc1: ${acc1}\n    acc2: 1.0\n  x: 1\n`;
    writeFileSync(join(folder, 'model.yml'), `Model: ResNet18\n${metrics}`);
    writeFileSync(join(folder, '.success'), '');
    return folder;
  }

  /** A task that has been trained; its best model is that of epoch 2. */
  async trained(): Promise<string> {
    const tid = await this.task(undefined, { num_epochs: 2 });
    await this.services.training.start(tid);
    const job = this.compute.job(`${tid}/train`);
    job.event({ type: 'started', device: 'cpu', precision: 'fp32', notes: [] });
    for (const epoch of [1, 2]) {
      job.event({ type: 'eval', epoch, metrics: { acc1: epoch / 4, acc2: 1 } });
      const path = this.checkpoint(tid, `epoch_${epoch}`);
      job.event({ type: 'saved', epoch, path, best: true });
    }
    this.checkpoint(tid, 'best_model');
    job.end({ type: 'train', stopped: false, completed_epochs: 2, best_epoch: 2, best_metrics: { acc1: 0.5 } });
    await this.until(() => !this.services.training.isLive(tid));
    return tid;
  }

  async until(done: () => boolean, ms = 5000): Promise<void> {
    const end = Date.now() + ms;
    while (!done()) {
      if (Date.now() > end) throw new Error('it did not happen');
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  fail(id: string, message = 'it broke'): void {
    this.compute.job(id).end(failedOutcome('internal', message));
  }
}
