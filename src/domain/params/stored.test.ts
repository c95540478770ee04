import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ProjectType } from '../enums.js';
import { planClassification } from './classification.js';
import { suggestParams } from './defaults.js';
import { createStored, mergeStored, readStored, type TaskDefaults } from './stored.js';

const defaults: TaskDefaults = {
  trainImages: 100,
  classes: 3,
  gpus: [],
  freeMemoryMb: 0,
  hasWeights: () => false,
};
const create = (type: ProjectType, given: Record<string, unknown>) => createStored(type, given, defaults);

test('a wrong value refuses the whole object and names the field', () => {
  assert.throws(() => create('classification', { model: 'ResNet50', batch_size: 0 }), /batch_size/);
  assert.throws(() => create('classification', { model: 'MaskRCNN' }), /has no model/);
  const { train } = create('classification', {});
  assert.throws(() => mergeStored('classification', train, { num_epochs: 'x' }), /num_epochs/);
});

test('only pid: the suggestions of the type fill everything', () => {
  const { train } = create('classification', {});
  assert.equal(train.model, 'MobileNetV2');
  assert.equal(train.batch_size, 4);
  assert.equal(train.num_epochs, 10);
  assert.equal(train.pretrain_weights, null);
  assert.equal('cpu_num' in train, false);
  assert.equal('backbone' in train, false);
  for (const key of [
    'optimizer',
    'label_smoothing',
    'weight_decay',
    'seed',
    'precision',
    'class_balance',
    'early_stop',
  ]) {
    assert.ok(key in train, key);
  }
});

test('the rate follows a chosen batch size; decay epochs are those of the model, whatever the length', () => {
  const { train } = create('classification', { model: 'ResNet18', batch_size: 64, num_epochs: 100 });
  assert.equal(train.learning_rate, (0.1 * 64) / 256);
  assert.deepEqual(train.lr_decay_epochs, [4, 6, 8]);
  assert.deepEqual(create('classification', { num_epochs: 1 }).train.lr_decay_epochs, [4, 6, 8]);
});

test('what the page sends back whole is stored whole for every type', () => {
  for (const type of ['classification', 'detection', 'segmentation', 'instance_segmentation'] as const) {
    const suggested = suggestParams({ ...defaults, type }).train;
    const sent = {
      ...suggested,
      use_gpu: true,
      backbone: suggested.backbone ?? '',
      brightness: true,
      contrast: false,
      horizontal_flip: false,
      vertical_flip: true,
      rotate: true,
      saturation: true,
      hue: false,
      image_shape: [256, 256],
    };
    const { train } = create(type, sent);
    for (const [key, value] of Object.entries(sent)) {
      if (['use_gpu', 'cpu_num'].includes(key) || (key === 'backbone' && value === '')) continue;
      assert.deepEqual(train[key], value, `${type} ${key}`);
    }
    // Read again and merged with nothing, it stays the same.
    assert.deepEqual(readStored(type, JSON.parse(JSON.stringify(train))), { train, warnings: [] });
    assert.deepEqual(mergeStored(type, train, {}).train, train);
  }
});

test('another model in a full default set is accepted; its backbone becomes possible', () => {
  const yolo = suggestParams({ ...defaults, type: 'detection' }).train;
  const { train } = create('detection', { ...yolo, model: 'FasterRCNN', backbone: 'ResNet50_vd' });
  assert.equal(train.model, 'FasterRCNN');
  assert.deepEqual(train.image_shape, [608, 608]);
  const changed = mergeStored('detection', train, { model: 'PPYOLO' });
  assert.equal(changed.train.backbone, 'ResNet50_vd_dcn');
  assert.match(changed.warnings.join(), /no backbone "ResNet50_vd"/);
  const net = mergeStored('segmentation', create('segmentation', {}).train, {
    model: 'U-Net',
    backbone: 'ResNet50_vd',
  });
  assert.equal('backbone' in net.train, false);
});

test('unknown names of weights become the first known one, with a warning; paths stay', () => {
  const named = create('classification', { pretrain_weights: 'COCO' });
  assert.equal(named.train.pretrain_weights, 'IMAGENET');
  assert.match(named.warnings.join(), /no pretrained weights "COCO"/);
  for (const path of ['/data/模型/best_model', 'w.pdparams', '/x/y.pth']) {
    assert.equal(create('classification', { pretrain_weights: path }).train.pretrain_weights, path);
  }
});

test('switches win over probabilities', () => {
  const { train } = create('classification', { hue: true, hue_prob: 0 });
  assert.equal(train.hue_prob, 0.5);
  // PaddleX stored 0 when a switch was off; turning it on later must have an effect.
  const off = readStored('classification', { model: 'ResNet18', rotate: false, rotate_prob: 0 }).train;
  assert.equal(off.rotate_prob, 0);
  assert.equal(mergeStored('classification', off, { rotate: true }).train.rotate_prob, 0.5);
});

test('damaged stored values fall back to defaults instead of losing the task', () => {
  const { train, warnings } = readStored('classification', { model: 'ResNet18', batch_size: 'x', num_epochs: 7 });
  assert.equal(train.num_epochs, 7);
  assert.equal(typeof train.batch_size, 'number');
  assert.match(warnings.join(), /batch_size.*default is used/);
  const foreign = readStored('classification', { model: 'NetOfTomorrow', num_epochs: 7 });
  assert.equal(foreign.train.model, 'NetOfTomorrow');
  assert.match(foreign.warnings.join(), /has no model/);
});

const plan = (given: Record<string, unknown>, site: Partial<Parameters<typeof planClassification>[1]> = {}) =>
  planClassification(create('classification', given).train, { trainImages: 100, gpus: [], ...site });

test('a job without training images is refused', () => {
  assert.throws(() => plan({}, { trainImages: 0 }), /no training images/);
});

test('impossible values are replaced and noted', () => {
  const small = plan({ batch_size: 64, image_shape: '20,30', brightness_range: 3 }, { trainImages: 10 });
  assert.equal(small.params.batch_size, 10);
  assert.deepEqual(small.params.image_shape, [32, 32]);
  assert.ok(small.params.brightness_range < 1);
  assert.equal(small.notes.length, 3, small.notes.join('\n'));
  const gpus = plan({ batch_size: 7, cuda_visible_devices: '0,1,5' }, { gpus: [0, 1] });
  assert.deepEqual(gpus.cuda, [0, 1]);
  assert.equal(gpus.params.batch_size, 6);
  assert.match(gpus.notes.join('\n'), /only 0, 1/);
  const cpu = plan({ cuda_visible_devices: '0' });
  assert.deepEqual(cpu.cuda, []);
  assert.match(cpu.notes.join(), /CPU is used/);
  for (const [model, side, used] of [
    ['AlexNet', 48, 63],
    ['AlexNet', 64, 64],
    ['HRNet_W18_C', 100, 96],
    ['HRNet_W18_C', 20, 32],
    ['ResNet18', 33, 33],
  ] as const) {
    const { params, notes } = plan({ model, image_shape: [side, side] });
    assert.deepEqual(params.image_shape, [used, used], model);
    assert.equal(notes.length, used === side ? 0 : 1);
  }
});

test('the job gets every parameter', () => {
  const { params, precision, pretrainWeights, notes } = plan({
    model: 'resnet18',
    num_epochs: '3',
    lr_policy: 'Cosine',
    early_stop: 'on',
    early_stop_patience: 2,
    amp: 'false',
    seed: 7,
    vertical_flip: false,
    image_shape: [64, 64],
  });
  assert.deepEqual(notes, []);
  assert.equal(precision, 'fp32');
  assert.equal(pretrainWeights, null);
  assert.deepEqual(params, {
    task_type: 'classification',
    model: 'ResNet18',
    batch_size: 4,
    num_epochs: 3,
    learning_rate: 0.0015625,
    lr_policy: 'Cosine',
    lr_decay_epochs: [4, 6, 8],
    warmup_steps: 0,
    warmup_start_lr: 0,
    save_interval_epochs: 5,
    optimizer: 'SGD',
    weight_decay: 1e-4,
    label_smoothing: 0,
    image_shape: [64, 64],
    image_mean: [0.485, 0.456, 0.406],
    image_std: [0.229, 0.224, 0.225],
    horizontal_flip: true,
    horizontal_flip_prob: 0.5,
    vertical_flip: false,
    vertical_flip_prob: 0.5,
    brightness: true,
    brightness_range: 0.9,
    brightness_prob: 0.5,
    contrast: true,
    contrast_range: 0.9,
    contrast_prob: 0.5,
    saturation: false,
    saturation_range: 0.9,
    saturation_prob: 0.5,
    hue: false,
    hue_range: 18,
    hue_prob: 0.5,
    rotate: true,
    rotate_prob: 0.5,
    rotate_range: 30,
    class_balance: false,
    early_stop_patience: 2,
    seed: 7,
  });
});
