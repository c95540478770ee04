/** What model a weights file belongs to, from the names under which such files are published. */
import { basename } from 'node:path';
import { findModelAnywhere, MODELS, type ModelInfo } from '../params/models.js';

const plain = (name: string): string => name.toLowerCase().replace(/[^a-z0-9]/g, '');

const PUBLISHED: Readonly<Record<string, string>> = {
  // torchvision and timm
  shufflenetv2x10: 'ShuffleNetV2',
  shufflenetv2x1: 'ShuffleNetV2',
  mobilenetv1100: 'MobileNetV1',
  mobilenetv2100: 'MobileNetV2',
  mobilenetv3large100: 'MobileNetV3_large',
  mobilenetv3small100: 'MobileNetV3_small',
  resnet50d: 'ResNet50_vd',
  // PaddleClas
  mobilenetv3largex10: 'MobileNetV3_large',
  mobilenetv3smallx10: 'MobileNetV3_small',
  mobilenetv3largex10ssld: 'MobileNetV3_large_ssld',
  mobilenetv3smallx10ssld: 'MobileNetV3_small_ssld',
  pplcnetx10: 'PPLCNet',
  pplcnetx10ssld: 'PPLCNet_ssld',
  darknet53imagenet1k: 'DarkNet53',
};

/** `resnet50-0676ba61.pth`, `ResNet50_vd_ssld_v2_pretrained.pdparams` or `ResNet18_IMAGENET.safetensors` → the model. */
export function guessModel(file: string): ModelInfo | undefined {
  const stem = basename(file)
    .replace(/\.[^.]+$/, '')
    .replace(/[-_.][0-9a-f]{8,}$/i, '') // torchvision's checksum
    .replace(/[_-](pretrained|imagenet|coco|cityscapes)$/i, '');
  // PaddleClas numbers its better versions (`ssld_v2`); in MobileNetV2 the number belongs to the name.
  return byKey(plain(stem)) ?? byKey(plain(stem.replace(/_v\d$/i, '')));
}

function byKey(key: string): ModelInfo | undefined {
  const published = PUBLISHED[key];
  if (published !== undefined) return findModelAnywhere(published);
  return MODELS.find((info) => plain(info.name) === key);
}
