import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseBackbone, findModel, findModelAnywhere, pretrainedNames, usableKeys, weightsKey } from './models.js';

test('a model of another type or an unknown one is refused with the offered names', () => {
  assert.throws(() => findModel('classification', 'YOLOv3'), /classification has no model "YOLOv3"/);
  assert.throws(() => findModel('detection', 'ResNet50'), /has no model/);
  assert.throws(() => findModel('segmentation', ''), /has no model/);
});

test('aliases of the page and of older builds are accepted', () => {
  const table: [Parameters<typeof findModel>[0], string, string][] = [
    ['segmentation', 'U-Net', 'UNet'],
    ['segmentation', 'DeepLabv3+', 'DeepLabV3P'],
    ['segmentation', 'DeepLabv3p', 'DeepLabV3P'],
    ['segmentation', 'DeepLabV3+', 'DeepLabV3P'],
    ['classification', 'resnet50_VD', 'ResNet50_vd'],
    ['instance_segmentation', 'MaskRCNN', 'MaskRCNN'],
  ];
  for (const [type, name, expected] of table) assert.equal(findModel(type, name).name, expected);
  assert.equal(findModelAnywhere('u-net')?.name, 'UNet');
  assert.equal(findModelAnywhere('nothing'), undefined);
});

test('backbones: renamed ones silently, impossible ones with a warning', () => {
  const choose = (type: Parameters<typeof findModel>[0], name: string, backbone: string) =>
    chooseBackbone(findModel(type, name), backbone);
  assert.deepEqual(choose('detection', 'PPYOLO', 'ResNet50_vd_ssld'), { backbone: 'ResNet50_vd_dcn' });
  assert.deepEqual(choose('detection', 'YOLOv3', 'MobileNetV3_large'), { backbone: 'MobileNetV3' });
  assert.deepEqual(choose('detection', 'PPYOLOTiny', 'anything'), { backbone: 'MobileNetV3' });
  assert.deepEqual(choose('detection', 'FasterRCNN', 'HRNet_W18'), { backbone: 'HRNet_W18' });
  assert.deepEqual(choose('detection', 'FasterRCNN', 'ResNet18'), { backbone: 'ResNet18' });
  assert.deepEqual(choose('instance_segmentation', 'MaskRCNN', 'ResNet18'), { backbone: 'ResNet18' });
  assert.equal(choose('instance_segmentation', 'MaskRCNN', 'ResNet34').backbone, 'ResNet50');
  // Of older builds.
  for (const backbone of ['Xception65', 'MobileNetV2_x0.25', 'MobileNetV3_large_x1_0_ssld'])
    assert.deepEqual(choose('segmentation', 'DeepLabv3+', backbone), { backbone });
  const unknown = choose('segmentation', 'DeepLabv3+', 'VGG16');
  assert.equal(unknown.backbone, 'ResNet50_vd');
  assert.match(unknown.warning ?? '', /no backbone "VGG16"/);
  assert.deepEqual(choose('segmentation', 'U-Net', 'ResNet50_vd'), { backbone: undefined });
  assert.deepEqual(choose('classification', 'ResNet50', 'NA'), { backbone: undefined });
});

test('names of pretrained weights, first one is the fallback', () => {
  const names = (type: Parameters<typeof findModel>[0], name: string, backbone?: string) =>
    pretrainedNames(findModel(type, name), backbone).join(' ');
  assert.equal(names('classification', 'DenseNet121'), 'IMAGENET');
  assert.equal(names('detection', 'YOLOv3', 'MobileNetV1'), 'COCO PascalVOC IMAGENET');
  assert.equal(names('detection', 'YOLOv3', 'MobileNetV3_ssld'), 'PascalVOC IMAGENET');
  assert.equal(names('detection', 'YOLOv3', 'DarkNet53'), 'COCO IMAGENET');
  assert.equal(names('detection', 'PicoDet', 'ResNet18_vd'), 'IMAGENET');
  assert.equal(names('segmentation', 'DeepLabV3P', 'ResNet50_vd'), 'CITYSCAPES PascalVOC IMAGENET');
  assert.equal(names('segmentation', 'UNet'), 'CITYSCAPES');
  assert.equal(names('segmentation', 'HRNet_W18'), 'CITYSCAPES PascalVOC');
});

test('weights live under model, backbone and name', () => {
  assert.equal(weightsKey(findModel('classification', 'ResNet50_vd'), undefined, 'IMAGENET'), 'ResNet50_vd_IMAGENET');
  assert.equal(weightsKey(findModel('detection', 'YOLOv3'), 'DarkNet53', 'COCO'), 'YOLOv3_DarkNet53_COCO');
  const keys = (model: string, backbone: string, name: string): string[] =>
    usableKeys(findModel('detection', model), backbone, name);
  assert.deepEqual(keys('YOLOv3', 'DarkNet53', 'COCO'), ['YOLOv3_DarkNet53_COCO']);
  assert.deepEqual(keys('YOLOv3', 'MobileNetV3', 'IMAGENET'), [
    'YOLOv3_MobileNetV3_IMAGENET',
    'MobileNetV3_large_IMAGENET',
  ]);
  assert.deepEqual(keys('PPYOLO', 'ResNet50_vd_dcn', 'IMAGENET')[1], 'ResNet50_vd_IMAGENET');
  assert.deepEqual(keys('PicoDet', 'ESNet_m', 'IMAGENET'), ['PicoDet_ESNet_m_IMAGENET']);
  assert.equal(keys('PPYOLOTiny', 'MobileNetV3', 'IMAGENET').length, 1);
});
