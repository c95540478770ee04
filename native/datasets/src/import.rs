//! The import job: check a folder, copy it, describe it.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use oarlock_imaging::ImageError;
use oarlock_jobs::{ErrorCode, ImportResult, ImportSpec, JobError, JobEvent, TaskType};

use crate::check::{check_picture, parallel};
use crate::scan::{Listing, join, root_of, scan};
use crate::{Index, Problems, folder};
use oarlock_files::{copy_file, replace_folder, sibling, sync_tree, write_bytes};

/// Progress is told at most this often.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// Where an import fails, as `context.stage` of its error: tells XCHECKFAIL from XCOPYFAIL.
const CHECKING: &str = "checking";
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
    if spec.task_type != TaskType::Classification {
        let message = "datasets of this type cannot be imported: not available yet";
        return Err(JobError::new(ErrorCode::Unsupported, message).with("stage", CHECKING));
    }
    let job = Import {
        spec,
        events,
        cancel,
    };
    let checked = job.check().map_err(|e| e.with("stage", CHECKING))?;
    job.place(checked).map_err(|e| e.with("stage", COPYING))
}

struct Import<'a> {
    spec: &'a ImportSpec,
    events: &'a (dyn Fn(JobEvent) + Sync),
    cancel: &'a AtomicBool,
}

struct Checked {
    root: PathBuf,
    listing: Listing,
    index: Index,
    warnings: Vec<String>,
}

impl Import<'_> {
    fn threads(&self) -> usize {
        match self.spec.threads {
            0 => {
                std::thread::available_parallelism().map_or(1, |n| n.get().saturating_sub(1).max(1))
            }
            n => n as usize,
        }
    }

    fn stopped(&self) -> Result<(), JobError> {
        if self.cancel.load(Ordering::Relaxed) {
            Err(JobError::cancelled())
        } else {
            Ok(())
        }
    }

    fn tell(&self, stage: &str, done: usize, total: usize) {
        let (done, total) = (done as u64, total as u64);
        (self.events)(JobEvent::Progress {
            done,
            total,
            stage: stage.to_owned(),
            eta: None,
        });
    }

    /// Runs `work` over all items with progress.
    fn each<T: Send>(
        &self,
        stage: &str,
        total: usize,
        work: &(dyn Fn(usize) -> Option<T> + Sync),
    ) -> Result<Vec<(usize, T)>, JobError> {
        self.tell(stage, 0, total);
        let last = Mutex::new(Instant::now());
        let done = |so_far: usize| {
            if let Ok(mut last) = last.try_lock()
                && last.elapsed() >= TELL_EVERY
            {
                *last = Instant::now();
                self.tell(stage, so_far, total);
            }
        };
        let results = parallel(total, self.threads(), self.cancel, &done, work);
        self.stopped()?;
        self.tell(stage, total, total);
        Ok(results)
    }

    fn check(&self) -> Result<Checked, JobError> {
        let given = &self.spec.source;
        let root = root_of(Path::new(given)).map_err(|reason| {
            JobError::new(ErrorCode::InvalidData, format!("{given}: {reason}"))
                .hint("give the path of a folder on the server")
        })?;
        let mut problems = Problems::default();
        let listing = scan(&root, &mut problems);
        let index = folder::index(&root, &listing, &mut problems);
        self.stopped()?;
        let bad = self.each(CHECKING, index.files.len(), &|item| {
            check_picture(&root.join(&index.files[item].0)).err()
        })?;
        for (item, error) in bad {
            problems.add(
                &index.files[item].0,
                None,
                error.to_string(),
                remedy(&error),
            );
        }
        let warnings = problems.into_error()?;
        Ok(Checked {
            root,
            listing,
            index,
            warnings,
        })
    }

    fn place(&self, checked: Checked) -> Result<ImportResult, JobError> {
        let Checked {
            root,
            listing,
            index,
            warnings,
        } = checked;
        let dest = Path::new(&self.spec.dest);
        let place = std::fs::canonicalize(dest).unwrap_or_else(|_| dest.to_owned());
        let details = index.details();
        let statis = details.to_string();
        let result = |files: u64| ImportResult {
            details,
            split: index.split,
            files,
            warnings,
        };
        if place == root {
            for (name, text) in lists(&index).into_iter().chain([("statis.json", statis)]) {
                let file = place.join(name);
                if std::fs::read(&file).ok().as_deref() != Some(text.as_bytes()) {
                    write_bytes(&file, text.as_bytes()).map_err(|e| named(name, e))?;
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
            .copy(&root, &listing, &index, &temporary, &statis)
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
        index: &Index,
        target: &Path,
        statis: &str,
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
        let errors = self.each(COPYING, files.len(), &|item| {
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
        for (name, text) in lists(index) {
            std::fs::write(target.join(name), text).map_err(|e| named(name, e))?;
        }
        std::fs::write(target.join("statis.json"), statis).map_err(|e| named("statis.json", e))?;
        sync_tree(target).map_err(|e| named("the copy", e))?;
        self.stopped()?;
        Ok(files.len() as u64)
    }
}

/// The list files of a dataset that came split. They keep their meaning, but get the one form that
/// training reads: UTF-8, `/`, two columns.
fn lists(index: &Index) -> Vec<(&'static str, String)> {
    if !index.split {
        return Vec::new();
    }
    vec![
        ("labels.txt", index.labels_text()),
        ("train_list.txt", index.list_text(&index.train)),
        ("val_list.txt", index.list_text(&index.val)),
        ("test_list.txt", index.list_text(&index.test)),
    ]
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

fn remedy(error: &ImageError) -> &'static str {
    match error {
        ImageError::Io(_, std::io::ErrorKind::PermissionDenied) => {
            "give the server read permission"
        }
        ImageError::Io(..) => "check the file and the disk",
        ImageError::TooManyPixels { .. } | ImageError::TooManyBytes { .. } => "shrink the picture",
        ImageError::Unsupported { .. } => "save it as JPEG or PNG",
        _ => "replace or remove the file",
    }
}

/// Labels, files and split of a dataset folder, from its list files if it has them, else from its
/// folders; pictures are not opened. Errors like those of [`import`].
pub fn read_index(root: &Path) -> Result<(Index, Vec<String>), JobError> {
    let shown = root.display();
    let root = root_of(root)
        .map_err(|reason| JobError::new(ErrorCode::NotFound, format!("{shown}: {reason}")))?;
    let mut problems = Problems::default();
    let listing = scan(&root, &mut problems);
    let index = folder::index(&root, &listing, &mut problems);
    Ok((index, problems.into_error()?))
}
