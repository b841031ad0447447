//! One segment, as PostgreSQL's `archive_command` hands it over, against pgBackRest.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::unistd::sync;
use tempfile::TempDir;

use crate::corpus::{idle_cluster, run};
use crate::home::{Home, Tool};
use crate::probe;
use crate::table::{Pairs, Row, seconds};
use crate::{Bench, Result};

/// Archives segments of the corpus, one process each, in turns.
pub(crate) fn single(bench: &Bench) -> Result<Vec<Row>> {
    let segments = &bench.corpus.segments;
    let home = Home::create(bench.path("single"), &["compression = zstd"])?;
    let repository = Repository::create(bench)?;
    let pairs = Pairs::collect(
        segments.len().min(bench.runs * 3),
        |number| {
            let segment = nth(segments, number)?;
            fs::read(segment)?;
            let cost = home.archive(bench, Tool::Walarch, Some(segment))?;
            home.expect_stored(number + 1)?;
            Ok(cost.wall_s)
        },
        |number| repository.push(nth(segments, number)?),
    )?;
    Ok(vec![Row::new(
        "one segment by its path, zstd, against `pgbackrest archive-push`",
        seconds(pairs.walarch()),
        seconds(pairs.other()),
        pairs.ratio(),
        "at least 1.8",
    )])
}

fn nth(segments: &[impl AsRef<Path>], number: usize) -> Result<&Path> {
    Ok(segments.get(number).ok_or("too few segments")?.as_ref())
}

/// A pgBackRest stanza with a repository on the same disk as the homes.
pub(crate) struct Repository {
    arguments: Vec<String>,
    /// The cluster it belongs to, if that was made for it alone.
    _idle: Option<TempDir>,
}

impl Repository {
    pub(crate) fn create(bench: &Bench) -> Result<Self> {
        let root = bench.path("pgbackrest");
        for directory in ["repo", "log", "lock", "spool"] {
            fs::create_dir_all(root.join(directory))?;
        }
        let idle = match &bench.corpus.data_directory {
            Some(_) => None,
            None => Some(idle_cluster()?),
        };
        let data_directory = match (&bench.corpus.data_directory, &idle) {
            (Some(data_directory), _) => data_directory.clone(),
            (None, Some(idle)) => idle.path().join("data"),
            (None, None) => return Err("no cluster".into()),
        };
        let path = root.display();
        let mut arguments = vec![
            "--config=/dev/null".to_owned(),
            "--stanza=main".to_owned(),
            format!("--pg1-path={}", data_directory.display()),
            format!("--repo1-path={path}/repo"),
            format!("--log-path={path}/log"),
            format!("--lock-path={path}/lock"),
            "--log-level-console=warn".to_owned(),
        ];
        run(Command::new("pgbackrest")
            .args(&arguments)
            .args(["--no-online", "stanza-create"]))?;
        arguments.push("--compress-type=zst".to_owned());
        arguments.push("--no-archive-async".to_owned());
        if idle.is_some() {
            // Another cluster wrote the segments; that spares pgBackRest a look at their header.
            arguments.push("--no-archive-header-check".to_owned());
        }
        Ok(Repository {
            arguments,
            _idle: idle,
        })
    }

    /// Runs `archive-get` of a segment that was pushed.
    pub(crate) fn get(&self, name: &Path, goal: &Path) -> Result<f64> {
        let arguments = self.arguments.iter().map(Path::new);
        let arguments = arguments
            .filter(|argument| !is_for_pushing(argument))
            .chain([Path::new("archive-get"), name, goal]);
        Ok(probe::measure("pgbackrest", arguments)?.wall_s)
    }

    pub(crate) fn push(&self, segment: &Path) -> Result<f64> {
        fs::read(segment)?;
        let arguments = self.arguments.iter().map(Path::new);
        let arguments = arguments.chain([Path::new("archive-push"), segment]);
        sync();
        Ok(probe::measure("pgbackrest", arguments)?.wall_s)
    }
}

/// Options that `archive-get` does not know.
fn is_for_pushing(argument: &Path) -> bool {
    let text = argument.to_string_lossy();
    text.starts_with("--compress-type") || text == "--no-archive-header-check"
}
