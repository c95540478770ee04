import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { OarlockError } from '../errors.js';
import { readTrainArgument } from './coerce.js';
import { coerceTrain } from './fields.js';

const refuses = (
  given: Record<string, unknown>,
  field: string,
  type: 'classification' | 'segmentation' = 'classification',
) =>
  assert.throws(
    () => coerceTrain(type, given),
    (error) => {
      assert.ok(error instanceof OarlockError, String(error));
      assert.equal(error.code, 'invalid_argument');
      assert.equal(error.context.field, field);
      assert.match(error.message, new RegExp(field));
      return true;
    },
    JSON.stringify(given),
  );

test('values out of range are refused with the name of the field', () => {
  for (const [key, values] of Object.entries({
    batch_size: [0, -1, 1.5, '0', 1e9, 'many', [], {}, true, Number.POSITIVE_INFINITY, '0x10'],
    num_epochs: [0, '-3', 2.5],
    learning_rate: [0, -0.1, 'fast', 1e300],
    save_interval_epochs: [0, '1.5'],
    lr_policy: ['Step', 3],
    lr_decay_epochs: [[0], '4,x', [1, null, 3]],
    image_shape: [[0, 224], '224,224,3', '9000', []],
    image_mean: ['0.5,0.5', [0.5, 0.5, 0.5, 0.5], [123.7, 116.3, 103.5]],
    image_std: [[0, 0.2, 0.2]],
    horizontal_flip: ['maybe', 2, {}],
    horizontal_flip_prob: [1.1, -0.1, 'half'],
    cuda_visible_devices: ['gpu0', {}, '0;1', true],
    label_smoothing: [1, -0.1],
    seed: [-1, 1.5],
    optimizer: ['Adagrad'],
    pretrain_weights: [{}, 'a\0b', 'x'.repeat(5000)],
  })) {
    for (const value of values) refuses({ [key]: value }, key);
  }
  refuses({ loss_type: [true] }, 'loss_type', 'segmentation');
});

test('objects whose keys shadow methods are refused like any other', () => {
  const odd = JSON.parse('{"toString": [], "valueOf": 1, "toJSON": 2, "length": 3}');
  for (const key of ['rotate', 'batch_size', 'cuda_visible_devices', 'lr_policy', 'image_shape', 'model']) {
    refuses({ [key]: odd }, key);
    if (key !== 'model' && key !== 'lr_policy') refuses({ [key]: [odd] }, key);
  }
});

test('numbers, lists and switches are converted from text', () => {
  assert.deepEqual(
    coerceTrain('classification', {
      batch_size: '16',
      learning_rate: '2.5e-3',
      image_shape: '224,224',
      image_mean: '0.485, 0.456, 0.406',
      lr_decay_epochs: '[8, 4, 6, 4]',
      horizontal_flip: 'on',
      vertical_flip: 'off',
      brightness: 'True',
      contrast: 0,
      hue_range: '18',
      cuda_visible_devices: [0, 1],
      lr_policy: 'cosine',
      num_epochs: 10.0,
    }),
    {
      batch_size: 16,
      learning_rate: 0.0025,
      image_shape: [224, 224],
      image_mean: [0.485, 0.456, 0.406],
      lr_decay_epochs: [4, 6, 8],
      horizontal_flip: true,
      vertical_flip: false,
      brightness: true,
      contrast: false,
      hue_range: 18,
      cuda_visible_devices: '0, 1',
      lr_policy: 'Cosine',
      num_epochs: 10,
    },
  );
  assert.deepEqual(coerceTrain('classification', { image_shape: 192 }), { image_shape: [192, 192] });
  assert.deepEqual(coerceTrain('classification', { amp: false, cuda_visible_devices: '' }), {
    precision: 'fp32',
    cuda_visible_devices: '',
  });
  assert.deepEqual(coerceTrain('classification', { amp: true, precision: 'bf16' }), { precision: 'bf16' });
});

test('placeholders count as not given and unknown keys are ignored', () => {
  assert.deepEqual(
    coerceTrain('classification', {
      batch_size: 'undefined',
      learning_rate: 'NaN',
      num_epochs: '',
      hue_prob: null,
      image_shape: 'undefined',
      rotate: 'undefined',
      model: '',
      cuda_visible_devices: null,
      use_gpu: true,
      cpu_num: 4,
      constructor: 'x',
      loss_type: [true, true],
      ['__proto__']: { batch_size: 3 },
    }),
    {},
  );
});

test('no pretrained model has several spellings; placeholders keep what is stored', () => {
  for (const value of [null, 'none', 'null', '', '不使用预训练模型']) {
    assert.deepEqual(coerceTrain('classification', { pretrain_weights: value }), { pretrain_weights: null });
  }
  assert.deepEqual(coerceTrain('classification', { pretrain_weights: 'undefined' }), {});
  assert.deepEqual(coerceTrain('classification', { pretrain_weights: 'IMAGENET' }), { pretrain_weights: 'IMAGENET' });
});

test('the train argument may be an object, its JSON text, or absent', () => {
  assert.throws(() => readTrainArgument('{"model": '), /train is not readable as JSON/);
  for (const bad of [[], '[]', 3, '3', true]) assert.throws(() => readTrainArgument(bad), /train must be an object/);
  assert.deepEqual(readTrainArgument('{"model": "ResNet18"}'), { model: 'ResNet18' });
  assert.deepEqual(readTrainArgument({ model: 'ResNet18' }), { model: 'ResNet18' });
  for (const none of [undefined, null, '', 'undefined']) assert.deepEqual(readTrainArgument(none), {});
});

test('whatever a client sends is either converted or refused as an invalid argument', () => {
  const keys = fc.constantFrom(
    'batch_size',
    'image_shape',
    'rotate',
    'lr_policy',
    'pretrain_weights',
    'cuda_visible_devices',
    'x',
  );
  fc.assert(
    fc.property(fc.dictionary(keys, fc.jsonValue()), (given) => {
      try {
        const read = coerceTrain('classification', given);
        assert.deepEqual(coerceTrain('classification', read), read, 'reading twice changes nothing');
      } catch (error) {
        if (!(error instanceof OarlockError) || error.code !== 'invalid_argument') throw error;
      }
    }),
    { numRuns: 2000 },
  );
});
