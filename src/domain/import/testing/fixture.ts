/** A workspace as PaddleX leaves it on disk, for tests. */
import { mkdir, utimes, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { computeConfig } from '../../../compute/config.js';
import { loadAddon } from '../../../compute/native-addon.js';
import type { LightCalls } from '../context.js';
import { encode, type WorkspaceMessage } from '../proto.js';
import { PADDLEX_BYTES } from './paddlex-bytes.js';

/** The real restricted reader, in this thread. */
export async function realLight(): Promise<LightCalls> {
  const addon = (await loadAddon(computeConfig({ workspace: '/' }).imagingAddon)) as unknown as Record<
    string,
    (...args: unknown[]) => unknown
  >;
  return { light: async <T>(fn: string, ...args: unknown[]) => addon[fn]?.(...args) as T };
}

export const OLD_ROOT = '/home/old/工作区';

/** The records, with the paths of the machine they were made on. */
export function messages(root = OLD_ROOT): WorkspaceMessage {
  const at = (path: string) => `${root}/${path}`;
  const model = { type: 'classification', pid: 'P0001', tid: 'T0001', create_time: '2024-05-03 09:00:00' };
  return {
    version: '0.2.0',
    path: root,
    datasets: {
      D0001: {
        id: 'D0001',
        name: '花 卉',
        desc: 'flowers',
        type: 'classification',
        path: at('datasets/D0001'),
        create_time: '2024-05-02 10:30:00',
      },
      D0002: {
        id: 'D0002',
        name: 'stuck',
        desc: '',
        type: 'detection',
        path: at('datasets/D0002'),
        create_time: '2024-05-02 10:31:00',
      },
    },
    projects: {
      P0001: {
        id: 'P0001',
        name: '项目',
        desc: '',
        type: 'classification',
        did: 'D0001',
        path: at('projects/P0001'),
        create_time: '2024-05-02 10:32:00',
      },
      P0002: {
        id: 'P0002',
        name: 'remote',
        desc: '',
        type: 'remote_segmentation',
        did: '',
        path: at('projects/P0002'),
        create_time: '2024-05-02 10:33:00',
      },
    },
    tasks: {
      T0001: {
        id: 'T0001',
        name: '',
        desc: 'first',
        pid: 'P0001',
        path: at('projects/P0001/T0001'),
        create_time: '2024-05-02 11:00:00',
        parent_id: '',
      },
      T0002: {
        id: 'T0002',
        name: '',
        desc: '',
        pid: 'P0001',
        path: at('projects/P0001/T0002'),
        create_time: '2024-05-02 12:00:00',
        parent_id: 'T0001',
      },
      T0003: {
        id: 'T0003',
        name: '',
        desc: '',
        pid: 'P0002',
        path: at('projects/P0002/T0003'),
        create_time: '2024-05-02 13:00:00',
        parent_id: '',
      },
    },
    max_dataset_id: 7,
    max_project_id: 2,
    max_task_id: 12,
    current_time: '',
    max_pretrained_model_id: 1,
    pretrained_models: {
      PM0001: { id: 'PM0001', name: '基础', model: 'ResNet50_vd_ssld', path: at('pretrain/PM0001'), ...model },
    },
    max_exported_model_id: 3,
    exported_models: {
      EM0003: {
        id: 'EM0003',
        name: 'lite',
        model: 'ResNet50_vd_ssld',
        path: '/export/lite',
        exported_type: 1,
        ...model,
      },
    },
  };
}

const log = (...lines: string[]): string =>
  lines.map((line, at) => `2024-05-02 11:0${at}:00 [INFO]\t${line}\n`).join('');

/** out.log of a task that trained two epochs of two steps and was resumed after the first. */
export const OUT_LOG =
  '2024-05-02 11:00:00 [DEBUG]\tDownloading: TotalSize=98.0M, DownloadSize=12.5M, Speed=350KB/s\n' +
  log(
    '\x1b[92m[TRAIN] Epoch=1/10, Step=2/4, loss=0.900000, acc1=0.500000, acc2=1.000000, lr=0.006250, time_each_step=0.12s, eta=1:23:45\x1b[0m',
    '[TRAIN] Epoch=1/10, Step=4/4, loss=     nan, acc1=0.600000, acc2=1.000000, lr=0.006250, time_each_step=0.12s, eta=1:20:00',
    '[TRAIN] Epoch 1 finished, loss=0.7, acc1=0.55 .',
    '[EVAL] Finished, Epoch=1, acc1=0.800000, acc2=1.000000, category=[0.1, 0.2] .',
    'Current evaluated best model on eval_dataset is epoch_1, acc1=0.800000',
    '[TRAIN] Epoch=2/10, Step=2/4, loss=0.500000, acc1=0.700000, acc2=1.000000, lr=0.006250, time_each_step=0.12s, eta=1:10:00',
    '[TRAIN] Epoch=2/10, Step=2/4, loss=0.400000, acc1=0.900000, acc2=1.000000, lr=0.006250, time_each_step=0.12s, eta=1:10:00',
    '[EVAL] Finished, Epoch=2, acc1=0.750000, acc2=1.000000 .',
    'Model saved in output/epoch_2.',
  ) +
  'a line of something else\n';

/** Writes the files. The workspace files themselves are left to the test. */
export async function writeFiles(root: string): Promise<void> {
  const put = async (path: string, content: Uint8Array | string = '\n') => {
    const full = join(root, path);
    await mkdir(dirname(full), { recursive: true });
    await writeFile(full, content);
  };
  const b = PADDLEX_BYTES;
  for (const name of ['rose/1.jpg', 'rose/2.jpg', '郁金香/a b.jpg', '郁金香/2.jpg'])
    await put(`datasets/D0001/${name}`, 'jpeg');
  await put('datasets/D0001/statis.pkl', b.statis);
  await put('datasets/D0001/XSPLITED');
  await put('datasets/D0002/XCOPYING', '4711 200\n');
  const task = 'projects/P0001/T0001';
  await put(`${task}/params.pkl`, b.params);
  await put(`${task}/XTRAINEXIT`, 'True\n');
  await put(`${task}/out.log`, OUT_LOG);
  await put(`${task}/err.log`, '');
  for (const epoch of ['epoch_1', 'epoch_2', 'best_model']) {
    await put(`${task}/output/${epoch}/model.pdparams`, 'weights');
    await put(`${task}/output/${epoch}/.success`, '');
  }
  await put(`${task}/output/epoch_3/model.pdparams`, 'half written');
  await put(`${task}/eval_res.pkl`, b.report);
  await put(`${task}/logs/evaluate/XEVALUATED`);
  await put(`${task}/logs/predict/XPRESTART`, '4711\n');
  await put(`${task}/logs/predict/total_num`, '5');
  await put(`${task}/visualized_test_results/a.png`, 'png');
  await put(`${task}/prune/XSPRUNEDONE`);
  await put(`${task}/prune/sensitivities_xy.pkl`, b.sensitivities);
  await put('projects/P0001/T0002/params.pkl', b.params);
  await put('projects/P0001/T0002/XTRAINING', '2147483646\n');
  await put('projects/P0002/T0003/params.pkl', b.paramsSegmentation);
  await put('projects/P0002/T0003/XINIT');
  await put('projects/P0002/T0003/XTRAINFAIL', 'older state\n');
  await utimes(join(root, 'projects/P0002/T0003/XTRAINFAIL'), 1000, 1000);
  await put('pretrain/PM0001/model.pdparams', 'weights');
  await put('pretrain/PM0001/params.pkl', b.params);
  await put('pretrain/PM0001/statis.pkl', b.modelStatis);
  await put('pretrain/PM0001/XPSAVEDONE');
}

/** Writes `workspace.<copy>.pb`. */
export async function writeCopy(
  root: string,
  copy: 'newest' | 'stable' | 'bak',
  content: Uint8Array | Partial<WorkspaceMessage>,
): Promise<void> {
  const bytes = content instanceof Uint8Array ? content : encode('Workspace', content);
  await mkdir(root, { recursive: true });
  await writeFile(join(root, `workspace.${copy}.pb`), bytes);
}
