//! Starts an in-process engine and a worker, and runs a task for each file.
//!
//! `cargo run --example quickstart [FILE…]`. If `HATCHET_CLIENT_TOKEN` is set, it runs against a real Hatchet.

#![allow(clippy::print_stdout, clippy::allow_attributes, reason = "a program for the terminal")]

use std::{collections::HashMap, env, error::Error, fs, path::PathBuf, pin::pin, time::Duration};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _, select_all};
use hatchet::embedded::Engine;
use hatchet::workflow::TaskResult;
use hatchet::{Client, Context, RunHandle, Task};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct File {
    path: PathBuf,
}

#[derive(Default, Serialize, Deserialize)]
struct Counts {
    lines: usize,
    words: usize,
    frequent: Vec<String>,
}

/// Counts the lines and words of a file, and finds the most frequent words.
async fn count_words(file: File, _: Context) -> TaskResult<Counts> {
    let text = tokio::fs::read_to_string(&file.path).await?;
    let mut counts = HashMap::new();
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.len() > 3) {
        *counts.entry(word.to_lowercase()).or_insert(0) += 1;
    }
    let mut frequent: Vec<_> = counts.into_iter().collect();
    frequent.sort_by(|(a, m), (b, n)| n.cmp(m).then(a.cmp(b)));
    let frequent = frequent.into_iter().take(3).map(|(word, count)| format!("{word} {count}")).collect();
    Ok(Counts { lines: text.lines().count(), words: text.split_whitespace().count(), frequent })
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
    print(&runs).await?;
    println!("worker: {report}");
    Ok(())
}

/// Prints a table of the runs by file, and their sum.
async fn print(runs: &[RunHandle<Counts>]) -> Result<(), Box<dyn Error>> {
    let millis = |length: Option<Duration>| length.unwrap_or_default().as_millis();
    let all = stream::iter(runs).map(|run| run.details().into_future()).buffered(16).try_collect::<Vec<_>>().await?;
    let mut rows = Vec::with_capacity(all.len());
    for details in &all {
        rows.push((details.input.parse::<File>()?.path, details));
    }
    rows.sort_by(|(a, _), (b, _)| a.cmp(b));
    println!(
        "{:>6}  {:>7}  {:>8}  {:>8}  {:9}  {:40}  most frequent words",
        "lines", "words", "waited", "worked", "status", "file"
    );
    let (mut lines, mut words, mut worked) = (0, 0, 0);
    for (path, details) in rows {
        let path = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(&path).display().to_string();
        let (wait, work) = (millis(details.queued_for()), millis(details.ran_for()));
        let counts = details.output().and_then(|output| output.parse::<Counts>().ok());
        let text = match (&counts, &details.outcome) {
            (Some(counts), _) => counts.frequent.join(", "),
            (None, outcome) => outcome.as_ref().map(ToString::to_string).unwrap_or_default(),
        };
        let counts = counts.unwrap_or_default();
        println!(
            "{:>6}  {:>7}  {wait:>5} ms  {work:>5} ms  {:9}  {path:40}  {text}",
            counts.lines, counts.words, details.status
        );
        (lines, words, worked) = (lines + counts.lines, words + counts.words, worked + work);
    }
    println!("{lines:>6}  {words:>7}  {:8}  {worked:>5} ms  {:9}  {} files", "", "in all", runs.len());
    Ok(())
}

/// The files on the command line, or this project's Markdown and source files.
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
