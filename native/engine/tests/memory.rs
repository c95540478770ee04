//! Trainings that do not fit into memory. Alone in its program: the limit holds for the whole process.

mod common;

use common::{dataset, recorder, spec};
use oarlock_engine::runtime::memory;
use oarlock_engine::{CancelToken, run_job};
use oarlock_jobs::{ErrorCode, JobOutcome, JobSpec};

#[test]
fn promise_19_a_training_that_does_not_fit_says_so_with_numbers_and_the_next_one_runs() {
    let dir = tempfile::tempdir().unwrap();
    dataset(&dir.path().join("data"), 24, 32);
    let mut big = spec(dir.path(), "T0001", "ResNet50");
    big.params.image_shape = [256, 256];
    big.params.batch_size = 48;
    memory::set_limit(Some(600 << 20));
    let outcome = run_job(
        "big",
        JobSpec::Train(Box::new(big)),
        &recorder(),
        &CancelToken::new(),
    );
    let JobOutcome::Failed(error) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        error.code,
        ErrorCode::ResourceExhausted,
        "{}",
        error.message
    );
    assert!(error.message.contains("600 MiB"), "{}", error.message);
    assert!(error.hint.unwrap().contains("batch_size"));
    for key in [
        "batch_size",
        "image_shape",
        "resident_bytes",
        "available_bytes",
    ] {
        assert!(error.context.contains_key(key), "{key}");
    }
    let log = std::fs::read_to_string(dir.path().join("T0001/err.log")).unwrap();
    assert!(log.contains("out of memory"), "{log}");

    // The same process goes on working.
    let mut small = spec(dir.path(), "T0002", "MobileNetV3_small");
    small.params.num_epochs = 1;
    let outcome = run_job(
        "small",
        JobSpec::Train(Box::new(small)),
        &recorder(),
        &CancelToken::new(),
    );
    assert!(matches!(outcome, JobOutcome::Train(_)), "{outcome:?}");
    assert!(
        memory::tensors().kept < 64 << 20,
        "memory is given back at the end of a job"
    );
    memory::set_limit(None);
}
