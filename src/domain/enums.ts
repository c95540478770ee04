/** Integers on the wire (api.md 1.5). The spellings are PaddleX's own: they are file names on disk too. */

export const DatasetStatus = {
  XEMPTY: 0,
  XCHECKING: 1,
  XCHECKFAIL: 2,
  XCOPYING: 3,
  XCOPYDONE: 4,
  XCOPYFAIL: 5,
  XSPLITED: 6,
} as const;
export type DatasetStatus = (typeof DatasetStatus)[keyof typeof DatasetStatus];

export const TaskStatus = {
  XUNINIT: 0,
  XINIT: 1,
  XDOWNLOADING: 2,
  XTRAINING: 3,
  XTRAINDONE: 4,
  XEVALUATED: 5,
  XEXPORTING: 6,
  XEXPORTED: 7,
  XTRAINEXIT: 8,
  XDOWNLOADFAIL: 9,
  XTRAINFAIL: 10,
  XEVALUATING: 11,
  XEVALUATEFAIL: 12,
  XEXPORTFAIL: 13,
  XPRUNEING: 14,
  XPRUNETRAIN: 15,
} as const;
export type TaskStatus = (typeof TaskStatus)[keyof typeof TaskStatus];

export const DownloadStatus = { XDDOWNLOADING: 0, XDDOWNLOADFAIL: 1, XDDOWNLOADDONE: 2, XDDECOMPRESSED: 3 } as const;
export type DownloadStatus = (typeof DownloadStatus)[keyof typeof DownloadStatus];

export const PredictStatus = { XPRESTART: 0, XPREDONE: 1, XPREFAIL: 2 } as const;
export type PredictStatus = (typeof PredictStatus)[keyof typeof PredictStatus];

export const PruneStatus = { XSPRUNESTART: 0, XSPRUNEING: 1, XSPRUNEDONE: 2, XSPRUNEFAIL: 3, XSPRUNEEXIT: 4 } as const;
export type PruneStatus = (typeof PruneStatus)[keyof typeof PruneStatus];

export const PretrainedModelStatus = { XPINIT: 0, XPSAVING: 1, XPSAVEFAIL: 2, XPSAVEDONE: 3 } as const;
export type PretrainedModelStatus = (typeof PretrainedModelStatus)[keyof typeof PretrainedModelStatus];

/** Project types in the order of the wire's integers; `remote_segmentation` (4) becomes segmentation with `remote`. */
export const PROJECT_TYPES = ['classification', 'detection', 'segmentation', 'instance_segmentation'] as const;
export type ProjectType = (typeof PROJECT_TYPES)[number];
