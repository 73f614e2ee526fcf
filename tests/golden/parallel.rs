//! Messages about several runs at once.

use serde_json::{Value, json};

use super::compare::{Compare, Extra};

/// Messages about runs that end in the same moment come in the order of chance, run by run in their own: so they are
/// compared run by run. Which of them says that the stream hangs up belongs to the whole.
pub(crate) fn by_run(compare: &mut Compare, path: &str, theirs: &Value, ours: &Value) -> (Value, Value) {
    let runs = |list: &Value| {
        let mut runs: Vec<String> = items(list).map(run).collect();
        runs.sort();
        runs.dedup();
        runs
    };
    let known = runs(theirs);
    if known.len() < 2 {
        return (theirs.clone(), ours.clone());
    }
    let hangups = |list: &Value| items(list).map(|item| item["message"]["hangup"].clone()).collect::<Value>();
    compare.check(&format!("{path}.hangup"), Extra::Forbidden, &hangups(theirs), &hangups(ours));
    let pick = |list: &Value, wanted: &str| {
        items(list).filter(|item| run(item) == wanted).map(without_hangup).collect::<Vec<_>>()
    };
    let both = known
        .iter()
        .map(|theirs_run| (pick(theirs, theirs_run), pick(ours, &compare.name(theirs_run))))
        .collect::<Vec<_>>();
    (both.iter().map(|(theirs, _)| json!(theirs)).collect(), both.iter().map(|(_, ours)| json!(ours)).collect())
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn run(item: &Value) -> String {
    item["message"]["workflow_run_id"].as_str().unwrap_or_default().to_owned()
}

fn without_hangup(item: &Value) -> Value {
    let mut item = item.clone();
    if let Some(message) = item["message"].as_object_mut() {
        message.remove("hangup");
    }
    item
}
