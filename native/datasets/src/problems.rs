//! Everything that is wrong with a dataset, collected instead of stopping at the first.

use oarlock_jobs::{ErrorCode, JobError};
use serde_json::json;

/// Problems that are told; the others are only counted.
pub const TOLD: usize = 100;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// File or folder relative to the dataset; empty for the dataset as a whole.
    pub file: String,
    /// Line of a list file, from 1.
    pub line: Option<usize>,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.file.is_empty(), self.line) {
            (true, _) => {}
            (false, None) => write!(f, "{}: ", self.file)?,
            (false, Some(line)) => write!(f, "{}, line {line}: ", self.file)?,
        }
        write!(f, "{}; {}", self.reason, self.remedy)
    }
}

/// Problems and remarks of one check.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    list: Vec<Problem>,
    count: u64,
    /// Remarks that do not fail the check.
    pub warnings: Vec<String>,
}

impl Problems {
    /// Adds a problem.
    pub fn add(
        &mut self,
        file: impl Into<String>,
        line: Option<usize>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.count += 1;
        if self.list.len() < TOLD {
            let (file, reason, remedy) = (file.into(), reason.into(), remedy.into());
            self.list.push(Problem {
                file,
                line,
                reason,
                remedy,
            });
        }
    }

    /// Adds a remark.
    pub fn warn(&mut self, text: impl Into<String>) {
        if self.warnings.len() < TOLD {
            self.warnings.push(text.into());
        }
    }

    /// How many problems there are, also those not told.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The first problems in order.
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// The problems as one error, if there are any: a line each, the list also as data.
    pub fn into_error(self) -> Result<Vec<String>, JobError> {
        if self.count == 0 {
            return Ok(self.warnings);
        }
        let mut message = match self.count {
            1 => String::new(),
            n => format!("The dataset has {n} problems:\n"),
        };
        let told: Vec<String> = self.list.iter().map(ToString::to_string).collect();
        message += &told.join("\n");
        if self.count > told.len() as u64 {
            message += &format!("\n… and {} more", self.count - told.len() as u64);
        }
        let data: Vec<_> = self
            .list
            .iter()
            .map(
                |p| json!({"file": p.file, "line": p.line, "reason": p.reason, "remedy": p.remedy}),
            )
            .collect();
        Err(JobError::new(ErrorCode::InvalidData, message)
            .with("problem_count", self.count)
            .with("problems", data)
            .with("warnings", self.warnings))
    }
}
