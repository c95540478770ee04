import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planSegmentation } from './segmentation.js';
import { createStored, mergeStored } from './stored.js';

const create = (given: Record<string, unknown>, channels?: { mean: number[]; std: number[] }) =>
  createStored('segmentation', given, {
    ...{ trainImages: 40, classes: 2, gpus: [], freeMemoryMb: 0, hasWeights: () => false },
    ...(channels === undefined ? {} : { channels }),
  }).train;

const plan = (given: Record<string, unknown>, site: Partial<Parameters<typeof planSegmentation>[1]> = {}) => {
  const made = planSegmentation(create(given), { trainImages: 40, gpus: [], ...site });
  assert.ok(made.params.task_type === 'segmentation');
  return { ...made, params: made.params };
};

test('the job gets every parameter', () => {
  const { params, notes, precision, pretrainWeights } = plan({
    ...{ model: 'DeepLabv3+', optimizer: 'Adam', loss_type: [true, true], image_shape: [96, 64], num_epochs: 2 },
    ...{ blur: true, scale_aspect: true, max_rotation: 20, rotate: true, seed: 3, precision: 'fp32' },
  });
  assert.deepEqual([notes, precision, pretrainWeights], [[], 'fp32', null]);
  assert.deepEqual(params, {
    task_type: 'segmentation',
    model: 'DeepLabV3P',
    backbone: 'ResNet50_vd',
    batch_size: 4,
    num_epochs: 2,
    learning_rate: 0.02,
    lr_policy: 'Polynomial',
    lr_decay_epochs: [10, 20],
    warmup_steps: 0,
    warmup_start_lr: 0,
    save_interval_epochs: 10,
    optimizer: 'Adam',
    weight_decay: 1e-4,
    image_shape: [96, 64],
    early_stop_patience: 0,
    seed: 3,
    losses: [
      { kind: 'dice', weight: 1 },
      { kind: 'cross_entropy', weight: 1 },
    ],
    class_weights: [],
    image_mean: [0.5, 0.5, 0.5],
    image_std: [0.5, 0.5, 0.5],
    min_val: [],
    max_val: [],
    horizontal_flip: true,
    horizontal_flip_prob: 0.5,
    vertical_flip: false,
    vertical_flip_prob: 0.5,
    brightness: false,
    brightness_range: 0.5,
    brightness_prob: 0.5,
    contrast: false,
    contrast_range: 0.5,
    contrast_prob: 0.5,
    saturation: false,
    saturation_range: 0.5,
    saturation_prob: 0.5,
    hue: false,
    hue_range: 18,
    hue_prob: 0.5,
    rotate: true,
    rotate_prob: 0.5,
    rotate_range: 20,
    blur: true,
    blur_prob: 0.1,
    scale_aspect: true,
    min_ratio: 0.5,
    aspect_ratio: 0.33,
  });
});

test('losses: none chosen is cross-entropy; networks without a choice have no backbone', () => {
  const kinds = (loss_type: boolean[]) => plan({ model: 'UNet', loss_type }).params.losses.map(({ kind }) => kind);
  assert.deepEqual(kinds([false, false]), ['cross_entropy']);
  assert.deepEqual(kinds([false, true]), ['cross_entropy']);
  assert.deepEqual(kinds([true, false]), ['dice']);
  assert.equal(plan({ model: 'UNet' }).params.backbone, null);
});

test('losses and class weights of their own', () => {
  const { params, notes } = plan({ losses: ['lovasz', 'BCE:0.5'], loss_type: [true, true] });
  assert.deepEqual(
    [params.losses, params.class_weights, notes],
    [
      [
        { kind: 'lovasz', weight: 1 },
        { kind: 'bce', weight: 0.5 },
      ],
      [],
      [],
    ],
  );
  const text = '[{"kind": "dice", "weight": "2"}, {"kind": "cross_entropy"}]';
  const both = plan({ losses: text, class_weights: '0.2, 1, 3' }, { labels: 3 });
  assert.deepEqual(
    [both.params.losses, both.params.class_weights, both.notes],
    [
      [
        { kind: 'dice', weight: 2 },
        { kind: 'cross_entropy', weight: 1 },
      ],
      [0.2, 1, 3],
      [],
    ],
  );
  // An empty list takes them back.
  const stored = mergeStored('segmentation', create({ losses: 'dice', class_weights: [1, 2] }), {
    losses: [],
    class_weights: '[]',
  }).train;
  const { params: plain } = planSegmentation(stored, { trainImages: 40, gpus: [], labels: 2 });
  assert.ok(plain.task_type === 'segmentation');
  assert.deepEqual([plain.losses, plain.class_weights], [[{ kind: 'cross_entropy', weight: 1 }], []]);

  const unused = plan({ losses: 'dice, lovasz', class_weights: [1, 2] });
  assert.match(unused.notes.join(), /cross-entropy only/);
  assert.throws(() => plan({ class_weights: [1, 2] }, { labels: 3 }), /class_weights has 2 values, .* 3 labels/);
  for (const [given, message] of [
    [{ losses: ['focal'] }, /losses must be one of cross_entropy, dice, lovasz, bce, not "focal"/],
    [{ losses: ['dice:0'] }, /losses must be a number above 0/],
    [{ losses: ['dice', 'dice:2'] }, /losses names dice twice/],
    [{ losses: [{ weight: 1 }] }, /losses/],
    [{ losses: '[{"kind": "dice"' }, /losses/],
    [{ losses: [['dice']] }, /losses/],
    [{ class_weights: [1, -1] }, /class_weights must be a number from 0/],
    [{ class_weights: [0, 0] }, /class_weights must not all be 0/],
    [{ class_weights: 'heavy' }, /class_weights must be a number/],
  ] as const)
    assert.throws(() => create(given), message, JSON.stringify(given));
});

test('what cannot be used is replaced and noted', () => {
  assert.throws(() => plan({}, { trainImages: 0 }), /no training images/);
  const { params, notes } = plan({ image_shape: [16, 512], label_smoothing: 0.1, class_balance: true, batch_size: 64 });
  assert.deepEqual([params.image_shape, params.batch_size], [[32, 512], 40]);
  assert.equal(notes.length, 4, notes.join('\n'));
  const { params: four, notes: why } = plan({ image_mean: [0.1, 0.2, 0.3, 0.4] });
  assert.deepEqual(four.image_mean, [0.5, 0.5, 0.5]);
  assert.match(why.join(), /three values/);
});

test('remote sensing: values are clipped and normalised as the import has measured, unless given per channel', () => {
  const channels = { min: [0, 100], max: [255, 1100], mean: [0.4, 0.3], std: [0.2, 0.1] };
  const measured = plan({}, { channels });
  assert.deepEqual(
    [measured.params.image_mean, measured.params.image_std, measured.params.min_val, measured.params.max_val],
    [
      [0.4, 0.3],
      [0.2, 0.1],
      [0, 100],
      [255, 1100],
    ],
  );
  assert.match(measured.notes.join(), /2 channels/);
  const own = plan({ image_mean: [0.5, 0.6], image_std: '0.1,0.2' }, { channels });
  assert.deepEqual([own.params.image_mean, own.params.image_std, own.notes], [[0.5, 0.6], [0.1, 0.2], []]);
  const suggested = create({}, { mean: [0.4, 0.3], std: [0.2, 0.1] });
  assert.deepEqual(
    [suggested.image_mean, suggested.image_std],
    [
      [0.4, 0.3],
      [0.2, 0.1],
    ],
  );
});
