//! The import job: check a folder, copy it, describe it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use oarlock_jobs::{ErrorCode, ImportResult, ImportSpec, JobError, JobEvent, TaskType};

use serde_json::Value;

use crate::scan::{Listing, join, root_of, scan};
use crate::sets::{self, Set, Work};
use crate::{Index, Problems, folder};
use oarlock_files::{copy_file, replace_folder, sibling, sync_tree, write_bytes};

/// Where an import fails, as `context.stage` of its error: tells XCHECKFAIL from XCOPYFAIL.
pub(crate) const CHECKING: &str = "checking";
const COPYING: &str = "copying";

/// Checks a source folder and copies it to its place; the source is never changed.
///
/// Every problem is reported, not only the first: `context.problems` (up to 100) and
/// `context.problem_count`; `context.stage` is `checking` or `copying`. The destination is replaced as
/// a whole and only when everything is there; a stopped or failed import leaves it as it was. A source
/// that is the destination itself is only checked and described again, its lists brought into form.
pub fn import(
    spec: &ImportSpec,
    events: &(dyn Fn(JobEvent) + Sync),
    cancel: &AtomicBool,
) -> Result<ImportResult, JobError> {
    let work = Work {
        events,
        cancel,
        threads: spec.threads as usize,
    };
    let job = Import { spec, work };
    let checked = job.check().map_err(|e| e.with("stage", CHECKING))?;
    job.place(checked).map_err(|e| e.with("stage", COPYING))
}

struct Import<'a> {
    spec: &'a ImportSpec,
    work: Work<'a>,
}

struct Checked {
    root: PathBuf,
    listing: Listing,
    set: Set,
    warnings: Vec<String>,
}

impl Import<'_> {
    fn check(&self) -> Result<Checked, JobError> {
        let given = &self.spec.source;
        let root = root_of(Path::new(given)).map_err(|reason| {
            JobError::new(ErrorCode::InvalidData, format!("{given}: {reason}"))
                .hint("give the path of a folder on the server")
        })?;
        let mut problems = Problems::default();
        let listing = scan(&root, &mut problems);
        let kind = (self.spec.task_type, self.spec.remote);
        let set = sets::check(kind, &root, &listing, &self.work, &mut problems)?;
        let warnings = problems.into_error()?;
        Ok(Checked {
            root,
            listing,
            set,
            warnings,
        })
    }

    fn place(&self, checked: Checked) -> Result<ImportResult, JobError> {
        let Checked {
            root,
            listing,
            set: Set { index, made },
            warnings,
        } = checked;
        let dest = Path::new(&self.spec.dest);
        let place = std::fs::canonicalize(dest).unwrap_or_else(|_| dest.to_owned());
        let details = index.details();
        let written = written(&index, made, &details);
        let result = |files: u64| ImportResult {
            details,
            split: index.split,
            files,
            warnings,
        };
        if place == root {
            for (name, content) in &written {
                let file = place.join(name);
                if std::fs::read(&file).ok().as_ref() != Some(content) {
                    write_bytes(&file, content).map_err(|e| named(name, e))?;
                }
            }
            return Ok(result(0));
        }
        if root.starts_with(&place) {
            let message =
                "the source lies inside the dataset's own folder, which the import replaces";
            return Err(JobError::new(ErrorCode::InvalidArgument, message));
        }
        let temporary = sibling(&place, "import");
        remove_leftovers(&place);
        let copied = self
            .copy(&root, &listing, &written, &temporary)
            .and_then(|files| {
                replace_folder(&temporary, &place).map_err(|e| named(&self.spec.dest, e))?;
                Ok(files)
            });
        if copied.is_err() {
            let _ = std::fs::remove_dir_all(&temporary); // the first error is the one to report
        }
        Ok(result(copied?))
    }

    fn copy(
        &self,
        root: &Path,
        listing: &Listing,
        written: &[(String, Vec<u8>)],
        target: &Path,
    ) -> Result<u64, JobError> {
        for (folder, files) in &listing.folders {
            if folder.is_empty() || !files.is_empty() {
                let path = if folder.is_empty() {
                    target.to_owned()
                } else {
                    target.join(folder)
                };
                std::fs::create_dir_all(path).map_err(|e| named(folder, e))?;
            }
        }
        let files: Vec<String> = listing
            .folders
            .iter()
            .flat_map(|(folder, files)| files.iter().map(move |file| join(folder, file)))
            .collect();
        // One failure is enough: the disk is full or broken for the others too.
        let failed = AtomicBool::new(false);
        let errors = self.work.each(COPYING, files.len(), &|item| {
            if failed.load(Ordering::Relaxed) {
                return None;
            }
            let name = &files[item];
            let error = copy_file(&root.join(name), &target.join(name)).err()?;
            failed.store(true, Ordering::Relaxed);
            Some(named(name, error))
        })?;
        if let Some((_, error)) = errors.into_iter().next() {
            return Err(error);
        }
        for (name, content) in written {
            std::fs::write(target.join(name), content).map_err(|e| named(name, e))?;
        }
        sync_tree(target).map_err(|e| named("the copy", e))?;
        self.work.stopped()?;
        Ok(files.len() as u64)
    }
}

/// What an import writes besides the copied files. The list files of a dataset that came split keep
/// their meaning, but get the one form that training reads: UTF-8, `/`, two columns.
fn written(index: &Index, made: Vec<(String, Vec<u8>)>, details: &Value) -> Vec<(String, Vec<u8>)> {
    let text = |(name, text): (&str, String)| (name.to_owned(), text.into_bytes());
    let mut files = made;
    files.push(text(("statis.json", details.to_string())));
    if index.split {
        files.extend(index.lists().map(text));
    }
    files
}

/// An input/output failure with the name of the file.
fn named(name: &str, error: std::io::Error) -> JobError {
    let mut job = JobError::from(error);
    job.message = format!("{name}: {}", job.message);
    if job.code == ErrorCode::ResourceExhausted {
        job.hint = Some("free some disk space, then import again".into());
    }
    job
}

/// Removes what an import that was killed left beside the dataset folder.
fn remove_leftovers(place: &Path) {
    let (Some(parent), Some(name)) = (place.parent(), place.file_name().and_then(|n| n.to_str()))
    else {
        return;
    };
    let Ok(entries) = std::fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let file = entry.file_name();
        let left = file.to_str().is_some_and(|f| {
            f.starts_with(&format!(".{name}.import-")) || f.starts_with(&format!(".{name}.old-"))
        });
        if left {
            let _ = std::fs::remove_dir_all(entry.path()); // only tidying up: the import does not need it
        }
    }
}

/// Labels, files and split of a dataset folder: of a classification set from its list files if it has
/// them, else from its folders; pictures are not opened. Of other types from `statis.json`, and where that
/// is lost from the whole folder, every file of which is then read. Errors like those of [`import`].
pub fn read_index(
    root: &Path,
    task_type: TaskType,
    remote: bool,
) -> Result<(Index, Vec<String>), JobError> {
    let shown = root.display();
    let root = root_of(root)
        .map_err(|reason| JobError::new(ErrorCode::NotFound, format!("{shown}: {reason}")))?;
    if task_type != TaskType::Classification {
        let statis = std::fs::read(root.join("statis.json")).ok();
        if let Some(index) = statis.and_then(|text| Index::from_details(&text, task_type)) {
            return Ok((index, Vec::new()));
        }
    }
    let mut problems = Problems::default();
    let listing = scan(&root, &mut problems);
    let index = if task_type == TaskType::Classification {
        folder::index(&root, &listing, &mut problems)
    } else {
        let work = Work {
            events: &|_| {},
            cancel: &AtomicBool::new(false),
            threads: 0,
        };
        sets::check((task_type, remote), &root, &listing, &work, &mut problems)?.index
    };
    Ok((index, problems.into_error()?))
}
