//! Keeps `src/compute/jobs.gen.ts` equal to the Rust types. Run with `UPDATE_GENERATED=1` to rewrite it.

use oarlock_jobs::*;
use ts_rs::{Config, TS};

#[test]
fn generated_typescript_is_current() {
    let config = Config::default();
    let mut text = String::from(
        "// Generated from native/jobs by `UPDATE_GENERATED=1 cargo test --release -p oarlock-jobs`. Do not edit.\n\n",
    );
    macro_rules! declare {
        ($($t:ty),+ $(,)?) => { $( text.push_str(&format!("export {}\n\n", <$t>::decl(&config))); )+ };
    }
    text.push_str("export type Metrics = { [key in string]?: number | null };\n\n");
    declare!(
        ErrorCode,
        JobError,
        TaskType,
        DatasetFormat,
        DatasetRef,
        Precision,
        DeviceSpec,
        Resume,
        LrPolicy,
        CommonParams,
        AugmentParams,
        ClassificationParams,
        LossKind,
        LossTerm,
        SegmentationParams,
        DetectionParams,
        TrainParams,
        PruneTarget,
        PruneSpec,
        TrainSpec,
        ModelSource,
        EvaluateSpec,
        PredictImage,
        PredictSpec,
        QuantMethod,
        QuantSpec,
        ExportSpec,
        LiteSpec,
        SensitivitySpec,
        SourceFormat,
        ImportSpec,
        JobSpec,
        PruneSummary,
        JobEvent,
        TrainResult,
        EvaluateResult,
        PredictItem,
        PredictResult,
        Probe,
        SampleKind,
        MeasureTask,
        MeasureSpec,
        ModelMeasure,
        Measured,
        ExportResult,
        LiteResult,
        SensitivityResult,
        ImportResult,
        JobOutcome,
    );
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../src/compute/jobs.gen.ts");
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(path, &text).expect("write jobs.gen.ts");
    }
    let on_disk = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        on_disk == text,
        "src/compute/jobs.gen.ts is stale: run UPDATE_GENERATED=1 cargo test --release -p oarlock-jobs"
    );
}
