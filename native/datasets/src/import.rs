//! The import job: check a folder, copy it, describe it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use oarlock_jobs::{
    ErrorCode, ImportResult, ImportSpec, JobError, JobEvent, SourceFormat, TaskType,
};

use serde_json::Value;

use crate::instances::is_pickle;
use crate::scan::{Listing, root_of, scan};
use crate::sets::{self, Later, Set, Work};
use crate::{Index, Problems, convert, folder};
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
    /// Path in the source, path in the dataset.
    copies: Vec<(String, String)>,
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
        let (task_type, remote) = (self.spec.task_type, self.spec.remote);
        let (copies, set) = match self.foreign(&root, &listing) {
            Some(format) => {
                // What lies deeper counts here.
                problems = Problems::default();
                problems.warn(format!(
                    "the annotations were converted from {}",
                    convert::title(format)
                ));
                let converted =
                    convert::convert(format, task_type, &root, &self.work, &mut problems)?;
                (converted.copies, converted.set)
            }
            None => {
                let kind = (task_type, remote);
                let set = sets::check(kind, &root, &listing, &self.work, &mut problems)?;
                let same = |path: String| (path.clone(), path);
                (listing.paths().map(same).collect(), set)
            }
        };
        let warnings = problems.into_error()?;
        Ok(Checked {
            root,
            copies,
            set,
            warnings,
        })
    }

    /// The format to convert from, if the folder is not in the format of its type.
    fn foreign(&self, root: &Path, listing: &Listing) -> Option<SourceFormat> {
        let ImportSpec {
            task_type,
            remote,
            format,
            dest,
            ..
        } = self.spec;
        match format {
            Some(SourceFormat::Native) => None,
            // What is described in its own place is not changed.
            _ if Path::new(dest)
                .canonicalize()
                .is_ok_and(|place| place == root) =>
            {
                None
            }
            Some(SourceFormat::Coco) if *task_type == TaskType::InstanceSegmentation => {
                Some(SourceFormat::Coco)
                    .filter(|_| !convert::is_native(*task_type, listing, *remote))
            }
            Some(format) if *task_type != TaskType::Classification => Some(*format),
            _ if convert::is_native(*task_type, listing, *remote) => None,
            _ => convert::recognise(root),
        }
    }

    fn place(&self, checked: Checked) -> Result<ImportResult, JobError> {
        let Checked {
            root,
            copies,
            set: Set { index, made, later },
            warnings,
        } = checked;
        let dest = Path::new(&self.spec.dest);
        let place = std::fs::canonicalize(dest).unwrap_or_else(|_| dest.to_owned());
        let details = index.details();
        let written = written(self.spec.task_type, &index, made, &details);
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
            for item in 0..later.as_ref().map_or(0, |later| later.count) {
                self.work.stopped()?;
                later
                    .as_ref()
                    .map_or(Ok(()), |later| make_in_place(&place, later, item))?;
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
            .copy(&root, &copies, &temporary)
            .and_then(|files| {
                self.make(&temporary, &written, later.as_ref())?;
                Ok(files)
            })
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
        files: &[(String, String)],
        target: &Path,
    ) -> Result<u64, JobError> {
        let folders = files
            .iter()
            .filter_map(|(_, to)| Some(to.rsplit_once('/')?.0));
        let folders: BTreeSet<&str> = folders.chain([""]).collect();
        for folder in folders {
            std::fs::create_dir_all(target.join(folder)).map_err(|e| named(folder, e))?;
        }
        // One failure is enough: the disk is full or broken for the others too.
        let failed = AtomicBool::new(false);
        let errors = self.work.each(COPYING, files.len(), &|item| {
            if failed.load(Ordering::Relaxed) {
                return None;
            }
            let (name, to) = &files[item];
            let error = copy_file(&root.join(name), &target.join(to)).err()?;
            failed.store(true, Ordering::Relaxed);
            Some(named(name, error))
        })?;
        if let Some((_, error)) = errors.into_iter().next() {
            return Err(error);
        }
        Ok(files.len() as u64)
    }

    /// Writes what the import adds to the copied files.
    fn make(
        &self,
        target: &Path,
        written: &[(String, Vec<u8>)],
        later: Option<&Later>,
    ) -> Result<(), JobError> {
        if let Some(Later { count, make }) = later {
            let failed = |item| {
                let (name, content) = make(item);
                put(target, &name, &content).err()
            };
            let errors = self.work.quietly(*count, &failed)?;
            if let Some((_, error)) = errors.into_iter().next() {
                return Err(error);
            }
        }
        for (name, content) in written {
            put(target, name, content)?;
        }
        sync_tree(target).map_err(|e| named("the copy", e))?;
        self.work.stopped()
    }
}

fn put(target: &Path, name: &str, content: &[u8]) -> Result<(), JobError> {
    let path = target.join(name);
    let written = path
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::write(&path, content));
    written.map_err(|e| named(name, e))
}

/// A file of a set that is described in its own place; pickles of PaddleX stay for the old server.
fn make_in_place(place: &Path, later: &Later, item: usize) -> Result<(), JobError> {
    let (name, content) = (later.make)(item);
    let path = place.join(&name);
    let old = std::fs::read(&path).ok();
    if old
        .as_ref()
        .is_some_and(|old| *old == content || is_pickle(old))
    {
        return Ok(());
    }
    path.parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| write_bytes(&path, &content))
        .map_err(|e| named(&name, e))
}

/// What an import writes besides the copied files. The list files of a dataset that came split keep
/// their meaning, but get the one form that training reads: UTF-8, `/`, two columns.
fn written(
    task_type: TaskType,
    index: &Index,
    made: Vec<(String, Vec<u8>)>,
    details: &Value,
) -> Vec<(String, Vec<u8>)> {
    let text = |(name, text): (&str, String)| (name.to_owned(), text.into_bytes());
    let mut files = made;
    files.push(text(("statis.json", details.to_string())));
    if index.split && task_type != TaskType::InstanceSegmentation {
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
