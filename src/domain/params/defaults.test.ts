import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ProjectType } from '../enums.js';
import { OarlockError } from '../errors.js';
import { type DefaultsInput, suggestParams } from './defaults.js';

const input = (given: Partial<DefaultsInput>): DefaultsInput => ({
  type: 'classification',
  trainImages: 1000,
  classes: 10,
  gpus: [],
  freeMemoryMb: 0,
  hasWeights: () => true,
  ...given,
});
const suggest = (given: Partial<DefaultsInput>) => suggestParams(input(given)).train;

test('a dataset without training images has no suggestions', () => {
  assert.throws(
    () => suggest({ trainImages: 0 }),
    (error) => error instanceof OarlockError && error.code === 'not_ready' && /no training images/.test(error.message),
  );
  assert.throws(() => suggest({ model: 'NoSuchNet' }), /has no model/);
});

// The objects of the PaddleX API documentation, key for key.
const CLASSIFICATION = {
  model: 'MobileNetV2',
  cpu_num: 1,
  cuda_visible_devices: '0',
  batch_size: 64,
  learning_rate: 0.0128,
  image_shape: [224, 224],
  save_interval_epochs: 5,
  num_epochs: 10,
  lr_decay_epochs: [4, 6, 8],
  resume_checkpoint: null,
  sensitivities_path: null,
  pretrain_weights: 'IMAGENET',
  lr_policy: 'Piecewise',
  image_mean: [0.485, 0.456, 0.406],
  image_std: [0.229, 0.224, 0.225],
  horizontal_flip: true,
  horizontal_flip_prob: 0.5,
  vertical_flip: true,
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
};
const {
  lr_policy: _,
  vertical_flip: _v,
  vertical_flip_prob: _p,
  rotate: _r,
  rotate_prob: _rp,
  rotate_range: _rr,
  ...BASE
} = CLASSIFICATION;

test('classification answers exactly the documented object', () => {
  // 513 + 57·64 MB fit 64 images.
  assert.deepEqual(suggest({ gpus: [0], freeMemoryMb: 513 + 57 * 64 + 56 }), CLASSIFICATION);
});

test('YOLO-like detection answers exactly the documented object', () => {
  const c = 2;
  const train = suggest({ type: 'detection', trainImages: 800, classes: c, gpus: [0], freeMemoryMb: 1555 + 943 * 8 });
  assert.deepEqual(train, {
    ...BASE,
    model: 'YOLOv3',
    batch_size: 8,
    learning_rate: ((0.005 / 12) * 8) / 8,
    image_shape: [608, 608],
    save_interval_epochs: 30,
    num_epochs: 270,
    lr_decay_epochs: [216, 243],
    brightness_range: 0.5,
    contrast_range: 0.5,
    saturation: true,
    saturation_range: 0.5,
    hue: true,
    backbone: 'DarkNet53',
    with_fpn: true,
    warmup_steps: 300, // min(max(3·100, 50·2), 400·2)
    use_mixup: true,
    mixup_alpha: 1.5,
    mixup_beta: 1.5,
    expand_image: true,
    expand_prob: 0.5,
    crop_image: true,
    random_shape: true,
    random_shape_sizes: [320, 352, 384, 416, 448, 480, 512, 544, 576, 608],
  });
});

test('two-stage detection has a neck and warm-up and none of the YOLO switches', () => {
  const off = { brightness: false, contrast: false, brightness_range: 0.5, contrast_range: 0.5, saturation_range: 0.5 };
  const train = suggest({ type: 'instance_segmentation', trainImages: 400, classes: 3 });
  assert.deepEqual(train, {
    ...BASE,
    ...off,
    cuda_visible_devices: '',
    model: 'MaskRCNN',
    backbone: 'ResNet50',
    with_fpn: true,
    batch_size: 4,
    learning_rate: (0.02 * 4) / 16,
    image_shape: [800, 1333],
    num_epochs: 12,
    lr_decay_epochs: [8, 11],
    save_interval_epochs: 1,
    warmup_steps: 100, // min(max(100, 50), 4000)
  });
});

test('segmentation answers exactly the documented object, backbone only where there is a choice', () => {
  const expected = {
    ...BASE,
    brightness: false,
    contrast: false,
    brightness_range: 0.5,
    contrast_range: 0.5,
    saturation_range: 0.5,
    cuda_visible_devices: '',
    model: 'DeepLabV3P',
    backbone: 'ResNet50_vd',
    batch_size: 4,
    learning_rate: 0.02,
    image_shape: [512, 512],
    num_epochs: 100,
    lr_decay_epochs: [10, 20],
    save_interval_epochs: 10,
    image_mean: [0.5, 0.5, 0.5],
    image_std: [0.5, 0.5, 0.5],
    lr_policy: 'Polynomial',
    optimizer: 'SGD',
    loss_type: [false, false],
    blur: false,
    blur_prob: 0.1,
    rotate: false,
    scale_aspect: false,
    min_ratio: 0.5,
    aspect_ratio: 0.33,
    vertical_flip: false,
    vertical_flip_prob: 0.5,
  };
  assert.deepEqual(suggest({ type: 'segmentation' }), expected);
  const { backbone: _b, ...without } = { ...expected, model: 'UNet', pretrain_weights: 'CITYSCAPES' };
  assert.deepEqual(suggest({ type: 'segmentation', model: 'U-Net' }), without);
});

test('batch sizes: hand-computed', () => {
  const table: [Partial<DefaultsInput>, number][] = [
    [{ model: 'MobileNetV2', gpus: [0], freeMemoryMb: 10000 }, 125], // (10000−513)//57 = 166, cap 125
    [{ model: 'MobileNetV2', gpus: [0, 1], freeMemoryMb: 3000 }, 86], // 43·2
    [{ model: 'ResNet50', gpus: [0, 1], freeMemoryMb: 10000 }, 32], // 43·2 capped at 32
    [{ model: 'ResNet50', gpus: [0], freeMemoryMb: 2000 }, 5], // (2000−739)//211
    [{ model: 'ResNet50', gpus: [0], freeMemoryMb: 100 }, 1], // formula negative
    [{ model: 'ResNet50', trainImages: 5 }, 2], // n//2
    [{ model: 'ResNet50', trainImages: 1 }, 1],
    [{ model: 'ResNet50' }, 4],
    [{ type: 'detection', model: 'PPYOLOTiny', gpus: [0], freeMemoryMb: 579 + 1025 * 3 }, 3],
    [{ type: 'detection', model: 'PPYOLOv2', gpus: [0], freeMemoryMb: 80000 }, 4],
    [{ type: 'detection', model: 'FasterRCNN', gpus: [0, 1], freeMemoryMb: 80000 }, 4],
    [{ type: 'instance_segmentation', gpus: [0], freeMemoryMb: 2702 + 1188 }, 1],
    [{ type: 'segmentation', model: 'FastSCNN', gpus: [0], freeMemoryMb: 636 + 144 * 2 }, 2],
    [{ type: 'segmentation', model: 'HRNet_W18', gpus: [0], freeMemoryMb: 800 + 682 * 3 }, 3],
    [{ type: 'segmentation', model: 'UNet', gpus: [0], freeMemoryMb: 1275 + 1256 * 2 }, 2],
    [{ type: 'segmentation', model: 'BiSeNetV2', gpus: [0], freeMemoryMb: 591 + 1605 * 2 }, 2],
  ];
  for (const [given, expected] of table) assert.equal(suggest(given).batch_size, expected, JSON.stringify(given));
});

test('rates and schedules: hand-computed', () => {
  const table: [Partial<DefaultsInput>, Record<string, unknown>][] = [
    [{ model: 'MobileNetV3_small' }, { learning_rate: 0.0008 }],
    [{ model: 'ResNet18' }, { learning_rate: 0.0015625 }],
    [{ model: 'HRNet_W18_C' }, { learning_rate: 0.0015625, num_epochs: 10, image_shape: [224, 224] }],
    [
      { type: 'detection', model: 'PPYOLOTiny' },
      { learning_rate: 0.00125, image_shape: [320, 320], num_epochs: 550 },
    ],
    [
      { type: 'detection', model: 'PPYOLO' },
      { backbone: 'ResNet50_vd_dcn', num_epochs: 200, lr_decay_epochs: [85, 135] },
    ],
    // s = 5, warm-up max(15, 500)=500 ≥ 216·5? no (1080)
    [
      { type: 'detection', trainImages: 20 },
      { warmup_steps: 500, num_epochs: 270 },
    ],
    // n = 4, b = 2, s = 2: warm-up 500 ≥ 216·2 adds 250 epochs
    [
      { type: 'detection', trainImages: 4 },
      { warmup_steps: 500, num_epochs: 520, lr_decay_epochs: [466, 493] },
    ],
    // n = 20, b = 4, s = 5: warm-up 50 ≥ 8·5 adds 10 epochs
    [
      { type: 'detection', model: 'FasterRCNN', trainImages: 20 },
      { warmup_steps: 50, num_epochs: 22, lr_decay_epochs: [18, 21] },
    ],
    // two GPUs halve the upper bound: 4000//2
    [
      { type: 'detection', model: 'FasterRCNN', trainImages: 20000, gpus: [0, 1], freeMemoryMb: 80000 },
      { warmup_steps: 2000, batch_size: 4, cuda_visible_devices: '0, 1' },
    ],
  ];
  for (const [given, expected] of table) {
    const train = suggest(given);
    for (const [key, value] of Object.entries(expected))
      assert.deepEqual(train[key], value, `${JSON.stringify(given)} ${key}`);
  }
});

test('weights are offered by name only when they are on this machine', () => {
  const asked: string[] = [];
  const { train, warnings } = suggestParams(input({ type: 'detection', hasWeights: (key) => asked.push(key) === 0 }));
  assert.equal(train.pretrain_weights, null);
  assert.deepEqual(asked, ['YOLOv3_DarkNet53_IMAGENET', 'DarkNet53_IMAGENET']);
  assert.match(warnings.join(), /npm run weights -- add/);
});

test('a dataset that is not split yet leaves out the limits that need its size', () => {
  const train = suggest({ type: 'detection', trainImages: null });
  assert.equal(train.batch_size, 4);
  assert.equal(train.num_epochs, 270);
});

/** type, model, n, c, GPUs, MB → batch, rate, epochs, decay, warm-up; computed by PaddleX itself (paddlex 2.1.0, `project/train/params_v2.py`). */
const REFERENCE: [
  ProjectType,
  string,
  number,
  number,
  number[],
  number,
  number,
  number,
  number,
  number[],
  number | null,
][] = [
  ['classification', 'MobileNetV2', 5, 200, [0], 3000, 2, 0.0004, 10, [4, 6, 8], null],
  ['classification', 'MobileNetV2', 3, 1, [0], 24000, 1, 0.0002, 10, [4, 6, 8], null],
  ['classification', 'MobileNetV2', 100, 200, [0, 1], 24000, 50, 0.010000000000000002, 10, [4, 6, 8], null],
  ['classification', 'MobileNetV3_small', 20000, 10, [0], 24000, 125, 0.025, 10, [4, 6, 8], null],
  ['classification', 'MobileNetV3_small', 2, 1, [0], 3000, 1, 0.0002, 10, [4, 6, 8], null],
  ['classification', 'MobileNetV3_small', 1, 1, [1, 2, 3], 3000, 1, 0.0002, 10, [4, 6, 8], null],
  ['classification', 'ResNet50', 20000, 10, [], 500, 4, 0.0015625, 10, [4, 6, 8], null],
  ['classification', 'ResNet50', 17, 1, [0, 1], 8000, 8, 0.003125, 10, [4, 6, 8], null],
  ['classification', 'ResNet50', 5, 10, [1, 2, 3], 24000, 2, 0.00078125, 10, [4, 6, 8], null],
  ['classification', 'ResNet50_vd_ssld', 5, 1, [0], 8000, 2, 0.00078125, 10, [4, 6, 8], null],
  ['classification', 'ResNet50_vd_ssld', 20000, 10, [0], 500, 1, 0.000390625, 10, [4, 6, 8], null],
  ['classification', 'ResNet50_vd_ssld', 20000, 10, [0, 1], 1500, 6, 0.0023437500000000003, 10, [4, 6, 8], null],
  ['classification', 'DenseNet121', 1000, 2, [0, 1], 500, 1, 0.000390625, 10, [4, 6, 8], null],
  ['classification', 'DenseNet121', 3, 2, [0, 1], 24000, 1, 0.000390625, 10, [4, 6, 8], null],
  ['classification', 'DenseNet121', 5, 10, [1, 2, 3], 3000, 2, 0.00078125, 10, [4, 6, 8], null],
  ['classification', 'Xception65', 3, 2, [1, 2, 3], 500, 1, 0.000390625, 10, [4, 6, 8], null],
  ['classification', 'Xception65', 1000, 1, [1, 2, 3], 24000, 48, 0.018750000000000003, 10, [4, 6, 8], null],
  ['classification', 'Xception65', 1, 1, [1, 2, 3], 24000, 1, 0.000390625, 10, [4, 6, 8], null],
  ['classification', 'DarkNet53', 2, 1, [0], 500, 1, 0.000390625, 10, [4, 6, 8], null],
  ['classification', 'DarkNet53', 3, 10, [0], 3000, 1, 0.000390625, 10, [4, 6, 8], null],
  ['classification', 'DarkNet53', 1, 10, [1, 2, 3], 500, 1, 0.000390625, 10, [4, 6, 8], null],
  ['classification', 'ShuffleNetV2', 17, 200, [0], 8000, 8, 0.003125, 10, [4, 6, 8], null],
  ['classification', 'ShuffleNetV2', 1, 2, [1, 2, 3], 24000, 1, 0.000390625, 10, [4, 6, 8], null],
  ['classification', 'ShuffleNetV2', 17, 2, [0], 3000, 8, 0.003125, 10, [4, 6, 8], null],
  ['detection', 'YOLOv3', 20000, 10, [0], 8000, 6, 0.0003125, 270, [216, 243], 4000],
  ['detection', 'YOLOv3', 1000, 1, [1, 2, 3], 1500, 1, 5.208333333333334e-5, 270, [216, 243], 133],
  ['detection', 'YOLOv3', 1000, 200, [0], 24000, 8, 0.0004166666666666667, 270, [216, 243], 10000],
  ['detection', 'PPYOLO', 1000, 2, [0], 8000, 4, 0.00020833333333333335, 200, [85, 135], 750],
  ['detection', 'PPYOLO', 20000, 1, [0, 1], 1500, 1, 5.208333333333334e-5, 200, [85, 135], 200],
  ['detection', 'PPYOLO', 3, 1, [0, 1], 8000, 1, 5.208333333333334e-5, 200, [85, 135], 50],
  ['detection', 'PPYOLOv2', 100, 200, [0, 1], 500, 1, 5.208333333333334e-5, 170, [105, 135, 150], 10000],
  ['detection', 'PPYOLOv2', 2, 10, [0], 3000, 1, 5.208333333333334e-5, 420, [355, 385, 400], 500],
  ['detection', 'PPYOLOv2', 1, 10, [0], 8000, 1, 5.208333333333334e-5, 670, [605, 635, 650], 500],
  ['detection', 'PPYOLOTiny', 3, 1, [1, 2, 3], 500, 1, 0.0003125, 550, [130, 540], 50],
  ['detection', 'PPYOLOTiny', 20000, 200, [0, 1], 24000, 32, 0.01, 550, [130, 540], 10000],
  ['detection', 'PPYOLOTiny', 5, 2, [1, 2, 3], 8000, 2, 0.000625, 550, [130, 540], 100],
  ['detection', 'FasterRCNN', 17, 1, [0, 1], 3000, 2, 0.0025, 12, [8, 11], 50],
  ['detection', 'FasterRCNN', 1000, 200, [1, 2, 3], 8000, 6, 0.0075, 12, [8, 11], 166],
  ['detection', 'FasterRCNN', 17, 200, [0], 8000, 2, 0.0025, 12, [8, 11], 50],
  ['instance_segmentation', 'MaskRCNN', 1000, 10, [1, 2, 3], 24000, 6, 0.0075, 12, [8, 11], 166],
  ['instance_segmentation', 'MaskRCNN', 1000, 1, [1, 2, 3], 500, 1, 0.00125, 12, [8, 11], 1000],
  ['instance_segmentation', 'MaskRCNN', 100, 10, [0, 1], 1500, 1, 0.00125, 12, [8, 11], 100],
  ['segmentation', 'DeepLabV3P', 1000, 10, [0], 500, 1, 0.005, 100, [10, 20], null],
  ['segmentation', 'DeepLabV3P', 5, 10, [1, 2, 3], 3000, 1, 0.005, 100, [10, 20], null],
  ['segmentation', 'DeepLabV3P', 100, 2, [0, 1], 3000, 1, 0.005, 100, [10, 20], null],
  ['segmentation', 'BiSeNetV2', 1, 2, [1, 2, 3], 3000, 1, 0.005, 100, [10, 20], null],
  ['segmentation', 'BiSeNetV2', 17, 2, [1, 2, 3], 8000, 8, 0.04, 100, [10, 20], null],
  ['segmentation', 'BiSeNetV2', 3, 10, [0, 1], 1500, 1, 0.005, 100, [10, 20], null],
  ['segmentation', 'UNet', 100, 1, [1, 2, 3], 8000, 12, 0.06, 100, [10, 20], null],
  ['segmentation', 'UNet', 2, 10, [0, 1], 24000, 1, 0.005, 100, [10, 20], null],
  ['segmentation', 'UNet', 5, 2, [0, 1], 3000, 2, 0.01, 100, [10, 20], null],
  ['segmentation', 'HRNet_W18', 17, 2, [0], 500, 1, 0.005, 100, [10, 20], null],
  ['segmentation', 'HRNet_W18', 17, 10, [0], 3000, 3, 0.015, 100, [10, 20], null],
  ['segmentation', 'HRNet_W18', 2, 200, [1, 2, 3], 24000, 1, 0.005, 100, [10, 20], null],
  ['segmentation', 'FastSCNN', 2, 1, [], 500, 1, 0.005, 100, [10, 20], null],
  ['segmentation', 'FastSCNN', 20000, 10, [1, 2, 3], 3000, 12, 0.06, 100, [10, 20], null],
  ['segmentation', 'FastSCNN', 20000, 10, [1, 2, 3], 24000, 12, 0.06, 100, [10, 20], null],
];

test('the formulas agree with PaddleX', () => {
  for (const [type, model, trainImages, classes, gpus, freeMemoryMb, batch, rate, epochs, decay, warmup] of REFERENCE) {
    const train = suggest({ type, model, trainImages, classes, gpus, freeMemoryMb });
    const got = [train.batch_size, train.num_epochs, train.lr_decay_epochs, train.warmup_steps ?? null];
    assert.deepEqual(
      got,
      [batch, epochs, decay, warmup],
      `${model} n=${trainImages} c=${classes} g=${gpus.length} m=${freeMemoryMb}`,
    );
    assert.ok(Math.abs((train.learning_rate as number) / rate - 1) < 1e-12, model);
  }
});
