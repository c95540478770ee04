/**
 * Models and backbones that each project type can train, their aliases and the weights known for them.
 * Lists and spellings are those of the PaddleX 2.x library and its web page.
 */

import type { ProjectType } from '../enums.js';
import { invalidArgument } from '../errors.js';

/** What the schedule and memory formulas distinguish. */
export type Family = 'classifier' | 'yolo' | 'rcnn' | 'picodet' | 'segmenter';

export interface ModelInfo {
  readonly name: string;
  readonly type: ProjectType;
  readonly family: Family;
  /** Empty for a model without a choice of backbone; the first is the default. */
  readonly backbones: readonly string[];
}

const CLASSIFIERS = [
  ...['MobileNetV2', 'ResNet18', 'ResNet34', 'ResNet50', 'ResNet101', 'ResNet50_vd', 'ResNet101_vd'],
  ...['ResNet50_vd_ssld', 'ResNet101_vd_ssld', 'DarkNet53', 'MobileNetV1', 'MobileNetV3_small', 'MobileNetV3_large'],
  ...['MobileNetV3_small_ssld', 'MobileNetV3_large_ssld', 'Xception41', 'Xception65', 'DenseNet121', 'DenseNet161'],
  ...['DenseNet201', 'ShuffleNetV2'],
  // Trained by the library, not offered by the page.
  ...[
    'ResNet152',
    'ResNet18_vd',
    'ResNet34_vd',
    'ResNet152_vd',
    'ResNet200_vd',
    'AlexNet',
    'DenseNet169',
    'DenseNet264',
  ],
  ...['HRNet_W18_C', 'HRNet_W30_C', 'HRNet_W32_C', 'HRNet_W40_C', 'HRNet_W44_C', 'HRNet_W48_C', 'HRNet_W64_C'],
  ...['Xception71', 'ShuffleNetV2_swish', 'PPLCNet', 'PPLCNet_ssld'],
];

/** The page offers the first two; the others are those of older builds. */
const DEEPLAB_BACKBONES = [
  ...['ResNet50_vd', 'ResNet101_vd', 'Xception41', 'Xception65', 'MobileNetV2_x0.25', 'MobileNetV2_x0.5'],
  ...['MobileNetV2_x1.0', 'MobileNetV2_x1.5', 'MobileNetV2_x2.0', 'MobileNetV3_large_x1_0_ssld'],
];

const RCNN_BACKBONES = ['ResNet50', 'ResNet50_vd', 'ResNet50_vd_ssld'];

const OTHERS: readonly ModelInfo[] = [
  model('YOLOv3', 'detection', 'yolo', [
    ...['DarkNet53', 'MobileNetV1', 'MobileNetV1_ssld', 'MobileNetV3', 'MobileNetV3_ssld', 'ResNet50_vd_dcn'],
    'ResNet34',
  ]),
  model('FasterRCNN', 'detection', 'rcnn', [
    ...RCNN_BACKBONES,
    ...['ResNet34', 'ResNet34_vd', 'ResNet101', 'ResNet101_vd', 'HRNet_W18', 'ResNet18'],
  ]),
  model('PPYOLO', 'detection', 'yolo', ['ResNet50_vd_dcn', 'ResNet18_vd', 'MobileNetV3_large', 'MobileNetV3_small']),
  model('PPYOLOTiny', 'detection', 'yolo', ['MobileNetV3']),
  model('PPYOLOv2', 'detection', 'yolo', ['ResNet50_vd_dcn', 'ResNet101_vd_dcn']),
  model('PicoDet', 'detection', 'picodet', ['ESNet_m', 'ESNet_s', 'ESNet_l', 'LCNet', 'MobileNetV3', 'ResNet18_vd']),
  model('DeepLabV3P', 'segmentation', 'segmenter', DEEPLAB_BACKBONES),
  model('BiSeNetV2', 'segmentation', 'segmenter', []),
  model('UNet', 'segmentation', 'segmenter', []),
  model('HRNet_W18', 'segmentation', 'segmenter', []),
  model('HRNet_W48', 'segmentation', 'segmenter', []),
  model('FastSCNN', 'segmentation', 'segmenter', []),
  model('MaskRCNN', 'instance_segmentation', 'rcnn', [...RCNN_BACKBONES, 'ResNet101', 'ResNet101_vd', 'ResNet18']),
];

function model(name: string, type: ProjectType, family: Family, backbones: string[]): ModelInfo {
  return { name, type, family, backbones };
}

/** Every trainable model, those of the page first. */
export const MODELS: readonly ModelInfo[] = [
  ...CLASSIFIERS.map((name) => model(name, 'classification', 'classifier', [])),
  ...OTHERS,
];

export const DEFAULT_MODEL: Readonly<Record<ProjectType, string>> = {
  classification: 'MobileNetV2',
  detection: 'YOLOv3',
  segmentation: 'DeepLabV3P',
  instance_segmentation: 'MaskRCNN',
};

const MODEL_ALIASES: Readonly<Record<string, string>> = {
  'u-net': 'UNet',
  'deeplabv3+': 'DeepLabV3P',
  deeplabv3p: 'DeepLabV3P',
  hrnet: 'HRNet_W18',
  // Spellings of the older, static builds.
  mobilenetv3_small_x1_0: 'MobileNetV3_small',
  mobilenetv3_large_x1_0: 'MobileNetV3_large',
};

/** Lower case without separators, so that `resnet50_VD` and `ResNet50_vd` meet. */
const fold = (name: string): string => name.trim().toLowerCase();
const BY_NAME = new Map(MODELS.map((info) => [`${info.type}/${fold(info.name)}`, info]));

/**
 * The model a client means by `name` in a project of `type`.
 * @throws OarlockError `invalid_argument` (field `model`) naming the models of that type.
 */
export function findModel(type: ProjectType, name: string): ModelInfo {
  const folded = fold(name);
  const found = BY_NAME.get(`${type}/${folded}`) ?? BY_NAME.get(`${type}/${fold(MODEL_ALIASES[folded] ?? '')}`);
  if (found !== undefined) return found;
  const names = MODELS.filter((info) => info.type === type).map((info) => info.name);
  throw invalidArgument('model', `${type} has no model "${name}".`, `It offers ${names.join(', ')}.`);
}

/** A classifier by its name in any spelling; used to tell what a weights file belongs to. */
export function findModelAnywhere(name: string): ModelInfo | undefined {
  const folded = fold(name);
  const wanted = new Set([folded, fold(MODEL_ALIASES[folded] ?? folded)]);
  return MODELS.find((info) => wanted.has(fold(info.name)));
}

export interface ChosenBackbone {
  /** `undefined` for a model without backbones. */
  backbone: string | undefined;
  warning?: string;
}

/** The backbone to train with: aliases of older builds resolved, an impossible one replaced by a valid one with a warning. */
export function chooseBackbone(info: ModelInfo, asked: string | null | undefined): ChosenBackbone {
  const wanted = (asked ?? '').trim();
  const fallback = info.backbones[0];
  if (fallback === undefined) return { backbone: undefined };
  if (wanted === '' || wanted === 'NA') return { backbone: fallback };
  const same = (name: string): string | undefined => info.backbones.find((entry) => fold(entry) === fold(name));
  const exact = same(wanted);
  if (exact !== undefined) return { backbone: exact };
  const renamed = backboneAlias(info.name, wanted);
  if (renamed !== undefined) return { backbone: renamed };
  if (info.name === 'PPYOLOTiny') return { backbone: fallback }; // has only one, whatever is asked
  return { backbone: fallback, warning: `${info.name} has no backbone "${wanted}"; ${fallback} is used.` };
}

function backboneAlias(name: string, wanted: string): string | undefined {
  if (/^PPYOLO(v2)?$/.test(name) && wanted === 'ResNet50_vd_ssld') return 'ResNet50_vd_dcn';
  if (name === 'YOLOv3' && wanted === 'MobileNetV3_large') return 'MobileNetV3';
  return undefined;
}

/** Names of pretrained weights that exist for a model, the fallback first. */
export function pretrainedNames(info: ModelInfo, backbone: string | undefined): readonly string[] {
  if (info.family === 'classifier') return ['IMAGENET'];
  if (info.name === 'YOLOv3') {
    const names = backbone === 'MobileNetV3_ssld' ? [] : ['COCO'];
    if (backbone?.startsWith('MobileNet')) names.push('PascalVOC');
    return [...names, 'IMAGENET'];
  }
  if (info.name === 'PicoDet') return backbone === 'ResNet18_vd' ? ['IMAGENET'] : ['COCO', 'IMAGENET'];
  if (info.family === 'yolo' || info.family === 'rcnn') return ['COCO', 'IMAGENET'];
  if (info.name === 'DeepLabV3P') return ['CITYSCAPES', 'PascalVOC', 'IMAGENET'];
  if (info.name.startsWith('HRNet')) return ['CITYSCAPES', 'PascalVOC'];
  return ['CITYSCAPES'];
}

/** Backbones that are called otherwise than the classifier of the same layers. */
const BACKBONE_CLASSIFIERS: Readonly<Record<string, string>> = {
  MobileNetV3: 'MobileNetV3_large',
  MobileNetV3_ssld: 'MobileNetV3_large_ssld',
  HRNet_W18: 'HRNet_W18_C',
  ResNet50_vd_dcn: 'ResNet50_vd',
  ResNet101_vd_dcn: 'ResNet101_vd',
};

/** Names of the folders whose weights serve, the model's own first: a backbone may also begin with its classifier. */
export function usableKeys(info: ModelInfo, backbone: string | undefined, name: string): string[] {
  const own = weightsKey(info, backbone, name);
  // PPYOLOTiny's backbone has half the width.
  if (name !== 'IMAGENET' || backbone === undefined || info.name === 'PPYOLOTiny') return [own];
  const classifier = BY_NAME.get(`classification/${fold(BACKBONE_CLASSIFIERS[backbone] ?? backbone)}`);
  return classifier === undefined || info.backbones.length === 0
    ? [own]
    : [own, weightsKey(classifier, undefined, name)];
}

/** Name of the folder that holds given weights: `<Model>[_<backbone>]_<NAME>`. */
export function weightsKey(info: ModelInfo, backbone: string | undefined, name: string): string {
  return [info.name, ...(info.backbones.length > 0 && backbone ? [backbone] : []), name].join('_');
}
