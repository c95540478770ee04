import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planDetection } from './detection.js';
import { createStored } from './stored.js';

const create = (type: 'detection' | 'instance_segmentation', given: Record<string, unknown>) =>
  createStored(type, given, { trainImages: 40, classes: 2, gpus: [], freeMemoryMb: 0, hasWeights: () => false }).train;

function plan(given: Record<string, unknown> = {}, type: 'detection' | 'instance_segmentation' = 'detection') {
  const made = planDetection(type, create(type, given), { trainImages: 40, gpus: [] });
  assert.ok(made.params.task_type === 'detection' || made.params.task_type === 'instance_segmentation');
  return { ...made, params: made.params };
}

test('the suggestions as they are', () => {
  const { params, notes } = plan();
  assert.deepEqual(notes, []);
  assert.deepEqual(
    [params.model, params.backbone, params.image_shape, params.weight_decay, params.lr_policy],
    ['YOLOv3', 'DarkNet53', [608, 608], 5e-4, 'Piecewise'],
  );
  assert.deepEqual(
    [params.use_mixup, params.expand_image, params.crop_image, params.random_shape, params.ema_decay],
    [true, true, true, true, 0],
  );
  assert.deepEqual(params.random_shape_sizes, [320, 352, 384, 416, 448, 480, 512, 544, 576, 608]);
  const mask = plan({}, 'instance_segmentation').params;
  assert.deepEqual(
    [mask.task_type, mask.model, mask.backbone, mask.with_fpn, mask.image_shape, mask.weight_decay, mask.use_mixup],
    ['instance_segmentation', 'MaskRCNN', 'ResNet50', true, [800, 1333], 1e-4, false],
  );
});

test('wishes are honoured, impossible ones replaced and noted', () => {
  const small = plan({ image_shape: '100', random_shape_sizes: [70, 96, 100], ema_decay: '0.9998' });
  assert.deepEqual(
    [small.params.image_shape, small.params.random_shape_sizes, small.params.ema_decay],
    [[96, 96], [64, 96], 0.9998],
  );
  assert.match(small.notes.join(), /image_shape 100, 100: it takes a multiple of 32; 96, 96 is used/);
  assert.match(small.notes.join(), /random_shape_sizes must be multiples of 32; 64, 96 are used/);
  assert.equal(small.notes.length, 2);
  const without = plan({ model: 'FasterRCNN', backbone: 'ResNet50_vd', with_fpn: false });
  assert.deepEqual([without.params.with_fpn, without.notes], [false, []]);
  const needs = plan({ model: 'FasterRCNN', backbone: 'ResNet18', with_fpn: 'false' });
  assert.deepEqual([needs.params.with_fpn, needs.params.backbone], [true, 'ResNet18']);
  assert.match(needs.notes.join(), /FasterRCNN with ResNet18 needs a feature pyramid/);
  const none = plan({ random_shape_sizes: '[]', vertical_flip: true });
  assert.equal(none.params.random_shape, false);
  assert.match(none.notes.join(), /no random_shape_sizes/);
  assert.match(none.notes.join(), /vertical_flip is not used/);
  assert.throws(() => create('detection', { ema_decay: 1 }), /ema_decay/);
  assert.throws(
    () => planDetection('detection', create('detection', {}), { trainImages: 0, gpus: [] }),
    /no training images/,
  );
});
