//! Evaluation measures. Pure arithmetic on labels and scores: no libtorch, no files.
//!
//! Definitions of classification follow scikit-learn (`confusion_matrix`, `precision_recall_fscore_support`,
//! `roc_auc_score`); the tests carry its numbers. Reports have the shape that PaddleX clients read.

mod classification;
mod detection;
mod ranking;
mod report;
mod segmentation;

pub use classification::{Confusion, PrecisionRecall};
pub use detection::{
    CocoParameters, CocoResult, CocoSummary, Detection, DetectionSettings, ImageResult, Measure,
    PrCurve, Region, Truth, VocClass, VocResult, average_precision, box_iou, box_iou_inclusive,
    coco_evaluate, detection_report, instance_report, voc_evaluate,
};
pub use ranking::{argmax, auc, in_top_k, top_k_accuracy};
pub use report::{ReportError, classification_report};
pub use segmentation::{
    ClassOverlap, IGNORED, Overlap, PixelCounter, nearest, overlap, segmentation_report,
};
