//! From nothing to finished runs: an engine in process, a worker, and one run for each file.
//!
//! `cargo run --example quickstart [FILE…]`. With `HATCHET_CLIENT_TOKEN` set, the same against a real Hatchet.

#![allow(clippy::print_stdout, clippy::allow_attributes, reason = "a program for the terminal")]

use std::{collections::HashMap, env, error::Error, fs, path::PathBuf, pin::pin, time::Duration};

use futures_util::stream::{StreamExt as _, select_all};
use hatchet::{Client, Context, Outcome, RunHandle, Task, TaskResult, embedded::Engine};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Serialize, Deserialize)]
struct File {
    path: PathBuf,
}

/// Counts the lines and words of a file, and finds the most frequent words.
async fn count_words(file: File, _: Context) -> TaskResult<Value> {
    let text = tokio::fs::read_to_string(&file.path).await?;
    let mut counts = HashMap::new();
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.len() > 3) {
        *counts.entry(word.to_lowercase()).or_insert(0) += 1;
    }
    let mut frequent: Vec<_> = counts.into_iter().map(|(word, count)| (count, word)).collect();
    frequent.sort_by(|a, b| b.cmp(a));
    frequent.truncate(3);
    Ok(json!({"lines": text.lines().count(), "words": text.split_whitespace().count(), "frequent": frequent}))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = if env::var_os("HATCHET_CLIENT_TOKEN").is_none() { Some(Engine::start().await?) } else { None };
    let hatchet = engine.as_ref().map_or_else(Client::from_env, |engine| Ok(engine.client()))?;
    let count = Task::new("quickstart-count-words", count_words).timeout(Duration::from_secs(30));
    let worker = hatchet.worker("quickstart").slots(8).register(&count).build()?.start().await?;

    let inputs = files()?.into_iter().map(|path| File { path });
    let runs = hatchet.run_many(&count, inputs).metadata("example", "quickstart").start().await?;
    let runs = runs.into_iter().collect::<Result<Vec<_>, _>>()?;
    let bar = indicatif::ProgressBar::new(runs.len() as u64);
    let mut changes = select_all(runs.iter().map(RunHandle::watch));
    let mut stop = pin!(tokio::signal::ctrl_c());
    while let Some(change) = tokio::select! { change = changes.next() => change, _ = &mut stop => None } {
        bar.inc(change?.is_final().into());
    }
    drop(changes);
    bar.finish_and_clear();
    let report = worker.shutdown().await;
    println!("{:36}  {:9}  {:>8}  {:>8}  result", "id", "status", "waited", "worked");
    for run in &runs {
        let details = run.details().await?;
        let millis = |length: Option<Duration>| length.unwrap_or_default().as_millis();
        let (wait, work) = (millis(details.waiting()), millis(details.working()));
        let text = |outcome: &Outcome| outcome.output().map_or_else(|| outcome.to_string(), ToString::to_string);
        let result = details.outcome.as_ref().map(text).unwrap_or_default();
        println!("{}  {:9}  {wait:>5} ms  {work:>5} ms  {result}", run.id(), details.status);
    }
    println!("worker: {report}");
    Ok(())
}

/// The files of the command line, or this project's own Markdown and sources.
fn files() -> std::io::Result<Vec<PathBuf>> {
    let mut files: Vec<_> = env::args_os().skip(1).map(PathBuf::from).collect();
    let mut folders = if files.is_empty() { vec![PathBuf::from(env!("CARGO_MANIFEST_DIR"))] } else { Vec::new() };
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("md" | "rs") => files.push(path),
                None if path.is_dir() && !path.ends_with("target") => folders.push(path),
                _ => {}
            }
        }
    }
    Ok(files)
}
