//! The job protocol: what the server asks of native code, and what comes back.
//!
//! One typed schema serves every transport (IPC to a local compute host, a byte stream to a remote
//! one, a call into the light addon). The TypeScript side is generated from these types by ts-rs
//! into `src/compute/jobs.gen.ts`; nothing is declared twice.

mod error;
mod event;
mod params;
mod result;
mod spec;

pub use error::{ErrorCode, JobError};
pub use event::{JobEvent, Metrics};
pub use params::{
    AugmentParams, ClassificationParams, CommonParams, DetectionParams, LossKind, LossTerm,
    LrPolicy, SegmentationParams, TrainParams,
};
pub use result::{
    EvaluateResult, ExportResult, ImportResult, JobOutcome, LiteResult, MeasureSpec, MeasureTask,
    Measured, ModelMeasure, PredictItem, PredictResult, Probe, PruneSummary, SampleKind,
    SensitivityResult, TrainResult,
};
pub use spec::{
    DatasetFormat, DatasetRef, DeviceSpec, EvaluateSpec, ExportSpec, ImportSpec, JobSpec, LiteSpec,
    ModelSource, Precision, PredictImage, PredictSpec, PruneSpec, PruneTarget, QuantMethod,
    QuantSpec, Resume, SensitivitySpec, SourceFormat, TaskType, TrainSpec,
};
