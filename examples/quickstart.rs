//! Starts an in-process engine and a worker, and runs a task for each file.
//!
//! `cargo run --example quickstart [FILE…]`. Without arguments, the files are the Markdown files of this project. If
//! `HATCHET_CLIENT_TOKEN` is set, it runs against a real Hatchet server.

#![allow(clippy::print_stdout, clippy::allow_attributes, reason = "examples print to the terminal")]

use std::path::{Path, PathBuf};
use std::{collections::HashMap, env, error::Error, fs, pin::pin, time::Duration};

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
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.len() > 5) {
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
    println!("{report}");
    Ok(())
}

/// Prints a table of the runs, sorted by file, with the sums in the last row; and the details of the run that took longest.
async fn print(runs: &[RunHandle<Counts>]) -> Result<(), Box<dyn Error>> {
    let all = stream::iter(runs).map(|run| run.details().into_future()).buffered(16).try_collect::<Vec<_>>().await?;
    let mut rows = Vec::with_capacity(all.len());
    for details in &all {
        let input = details.input.as_ref().ok_or("the server did not return the input of a run")?;
        rows.push((name(&input.parse::<File>()?.path), details));
    }
    rows.sort_by(|(a, _), (b, _)| a.cmp(b));
    let width = rows.iter().map(|(file, _)| file.len()).max().unwrap_or_default().max("file".len());
    println!(
        "{:width$}  {:9}  {:>6}  {:>7}  {:>8}  {:>8}  most frequent words",
        "file", "status", "lines", "words", "queued", "ran"
    );
    let (mut lines, mut words, mut queued, mut ran) = (0, 0, 0, 0);
    for (file, details) in &rows {
        let counts = details.output().and_then(|output| output.parse::<Counts>().ok());
        let text = match (&counts, &details.outcome) {
            (Some(counts), _) => counts.frequent.join(", "),
            (None, outcome) => outcome.as_ref().map(ToString::to_string).unwrap_or_default(),
        };
        let counts = counts.unwrap_or_default();
        let (wait, work) = (millis(details.queued_for()), millis(details.ran_for()));
        let (l, w) = (counts.lines, counts.words);
        println!("{file:width$}  {:9}  {l:>6}  {w:>7}  {wait:>5} ms  {work:>5} ms  {text}", details.status);
        (lines, words, queued, ran) = (lines + l, words + w, queued + wait, ran + work);
    }
    println!(
        "{:width$}  {:9}  {lines:>6}  {words:>7}  {queued:>5} ms  {ran:>5} ms",
        "total",
        format!("{} runs", rows.len())
    );
    if let Some((_, longest)) = rows.iter().max_by_key(|(_, details)| details.ran_for()) {
        println!("\n{longest}\n");
    }
    Ok(())
}

fn millis(length: Option<Duration>) -> u128 {
    length.unwrap_or_default().as_millis()
}

/// The path of a file, relative to this project.
fn name(path: &Path) -> String {
    path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(path).display().to_string()
}

/// The files on the command line, or the Markdown files in the directory of this project.
fn files() -> std::io::Result<Vec<PathBuf>> {
    let files: Vec<_> = env::args_os().skip(1).map(PathBuf::from).collect();
    if !files.is_empty() {
        return Ok(files);
    }
    let paths = fs::read_dir(env!("CARGO_MANIFEST_DIR"))?.map(|entry| Ok(entry?.path()));
    let is_markdown = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    Ok(paths.collect::<std::io::Result<Vec<_>>>()?.into_iter().filter(is_markdown).collect())
}
