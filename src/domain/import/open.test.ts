import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { createServices } from '../../services.js';
import { TaskStatus } from '../enums.js';
import { ScriptedCompute } from '../testing/compute.js';
import { quietLog } from '../testing/harness.js';
import { messages, realLight, writeCopy, writeFiles } from './testing/fixture.js';

const root = await mkdtemp(join(tmpdir(), 'oarlock-open-'));
after(() => rm(root, { recursive: true, force: true }));
const light = await realLight();

const open = async () => {
  const compute = new ScriptedCompute();
  compute.calls.readPickle = (...args: never[]) => light.light('readPickle', ...args);
  return createServices({ workspace: root, dataRoots: [], minFreeBytes: 0 }, { log: quietLog, compute });
};

test('opening the folder of PaddleX as the workspace: everything answers as if it had been made here', async () => {
  await writeFiles(root);
  await writeCopy(root, 'stable', messages());
  const services = await open();
  const { datasets, tasks, training, jobs, models, projects } = services;
  assert.deepEqual((await datasets.details('D0001'))?.labels, ['rose', '郁金香', 'empty']);
  assert.equal(projects.tasksOf('P0001').length, 2);
  assert.equal(tasks.params('T0001').model, 'ResNet50_vd_ssld');
  assert.deepEqual(await tasks.savedEpochs('T0001'), [1, 2]);
  assert.equal(await tasks.checkpoint('T0001', null), join(root, 'projects/P0001/T0001/output/best_model'));
  const log = training.log('T0001');
  assert.equal(log.train_metrics?.Epoch, 2);
  assert.equal(log.eval_metrics?.acc1, 0.75);
  assert.equal(log.running_duration, '0小时8分0秒');
  assert.deepEqual(await training.bestMetric('T0001'), { acc1: 0.8 });
  const all = await training.allEpochs('T0001');
  assert.deepEqual([all.key, all.epoch_result_dict, all.best_epoch], ['acc1', { '1': 0.8, '2': 0.75 }, 1]);
  assert.equal(training.curves('T0001').length, 5);
  assert.equal(jobs.get('T0001', 'evaluate')?.status, TaskStatus.XEVALUATED);
  assert.equal((await jobs.report('T0001')).report?.Acc1, 0.5);
  assert.equal(models.get('PM0001').name, '基础');
  assert.equal(models.pretrained().length, 1);
  // A new task beside the old ones.
  const created = await tasks.create({ pid: 'P0001' });
  assert.equal(created.id, 'T0013');
  await projects.delete('P0001', { force: true });
  await services.close(1000);

  const again = await open();
  assert.equal(again.store.get('project', 'P0001'), undefined, 'what was deleted does not come back');
  assert.equal(again.store.get('project', 'P0002')?.remote, true);
  await again.close(1000);
});
