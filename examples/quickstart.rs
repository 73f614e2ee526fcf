//! From nothing to finished runs: an engine in process, a worker, and one run for each file.
//!
//! `cargo run --example quickstart [FILE…]`. With `HATCHET_CLIENT_TOKEN` set, the same against a real Hatchet.

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;
use std::{env, error::Error, fs};

use futures_util::stream::{StreamExt as _, select_all};
use hatchet::{Client, Context, RunHandle, Task, TaskResult, embedded::Engine};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct File {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Count {
    lines: usize,
    words: usize,
    frequent: Vec<(String, usize)>,
}

async fn count_words(file: File, _: Context) -> TaskResult<Count> {
    let text = tokio::fs::read_to_string(&file.path).await?;
    let mut counts = HashMap::new();
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.len() > 3);
    words.for_each(|word| *counts.entry(word.to_lowercase()).or_insert(0) += 1);
    let mut frequent: Vec<_> = counts.into_iter().collect();
    frequent.sort_by(|(a, x), (b, y)| y.cmp(x).then(a.cmp(b)));
    frequent.truncate(3);
    Ok(Count { lines: text.lines().count(), words: text.split_whitespace().count(), frequent })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let real = env::var_os("HATCHET_CLIENT_TOKEN").is_some();
    let engine = if real { None } else { Some(Engine::start().await?) };
    let hatchet = engine.as_ref().map_or_else(Client::from_env, |engine| Ok(engine.client()))?;
    let count = Task::new("quickstart-count-words", count_words).timeout(Duration::from_secs(30));
    let worker = hatchet.worker("quickstart").slots(8).register(&count).build()?.start().await?;

    let files = files()?.into_iter().map(|path| File { path });
    let runs = hatchet.run_many(&count, files).metadata("example", "quickstart").start().await?;
    let runs = runs.into_iter().collect::<Result<Vec<_>, _>>()?;
    let bar =
        ProgressBar::new(runs.len() as u64).with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}")?);
    let mut changes = select_all(runs.iter().map(RunHandle::watch));
    let mut stop = pin!(tokio::signal::ctrl_c());
    loop {
        let change = tokio::select! {
            change = changes.next() => change,
            _ = &mut stop => None,
        };
        let Some(change) = change.transpose()? else { break };
        bar.set_message(change.state.to_string());
        bar.inc(change.is_final().into());
    }
    bar.finish_and_clear();
    println!("{:36}  {:9}  {:>8}  {:>8}  result", "id", "status", "waited", "worked");
    for run in &runs {
        let details = run.details().await?;
        let result = match details.output().map(|output| output.parse::<Count>()).transpose()? {
            Some(Count { lines, words, frequent }) => {
                format!("{lines} lines, {words} words, most frequent: {frequent:?}")
            }
            None => details.outcome.as_ref().map(ToString::to_string).unwrap_or_default(),
        };
        let length = |length: Option<Duration>| format!("{:.1} ms", length.unwrap_or_default().as_secs_f64() * 1e3);
        println!(
            "{}  {:9}  {:>8}  {:>8}  {result}",
            run.id(),
            details.status,
            length(details.waiting()),
            length(details.working())
        );
    }
    println!("worker: {}", worker.shutdown().await);
    Ok(())
}

/// The files of the command line, or this project's own Markdown and sources.
fn files() -> Result<Vec<PathBuf>, std::io::Error> {
    let given: Vec<_> = env::args_os().skip(1).map(PathBuf::from).collect();
    if !given.is_empty() {
        return Ok(given);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut files) = (vec![root.to_owned(), root.join("src"), root.join("examples")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("md" | "rs") => files.push(path),
                None if path.is_dir() && folder.starts_with(root.join("src")) => folders.push(path),
                _ => {}
            }
        }
    }
    Ok(files)
}
