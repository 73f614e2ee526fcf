//! Normalizes the random order of messages about concurrent runs and tasks.

use serde_json::{Value, json};

use super::compare::{Compare, Extra};

/// Groups messages by run. Messages about runs that end at the same time have a random order, but those of one run are in order. The
/// `hangup` flags are compared over all messages.
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
    let of_run =
        |list: &Value, id: &str| items(list).filter(|item| run(item) == id).map(without_hangup).collect::<Vec<_>>();
    let both = known
        .iter()
        .map(|theirs_run| (of_run(theirs, theirs_run), of_run(ours, &compare.name(theirs_run))))
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

/// Sorts the tasks of a run by name, and replaces the ids of dependencies by names.
pub(crate) fn sorted(details: &Value) -> Value {
    let mut details = details.clone();
    if !details.is_object() {
        return details;
    }
    let names: Vec<_> =
        items(&details["shape"]).map(|step| (step["stepId"].clone(), step["taskName"].clone())).collect();
    if let Some(shape) = details.get_mut("shape").and_then(Value::as_array_mut) {
        for step in shape.iter_mut() {
            if let Some(after) = step["childrenStepIds"].as_array_mut() {
                for id in after.iter_mut() {
                    *id = names.iter().find(|(known, _)| known == id).map_or(Value::Null, |(_, name)| name.clone());
                }
                after.sort_by_key(Value::to_string);
            }
        }
        shape.sort_by_key(|step| step["taskName"].to_string());
    }
    for key in ["tasks", "children"] {
        if let Some(tasks) = details.get_mut(key).and_then(Value::as_array_mut) {
            tasks.sort_by_key(|task| task["displayName"].to_string());
        }
    }
    details
}

/// Removes messages that a stream by run id may miss. It searches its run again after a second, and may miss messages of that time.
pub(crate) fn since(compare: &Compare, attached: i64, theirs: &Value, ours: &Value) -> Value {
    let of = |compare: &Compare, item: &Value| {
        [&item["message"]["event_type"], &item["message"]["resource_id"]]
            .map(|text| compare.name(text.as_str().unwrap()))
    };
    let window = attached + 1000..attached + 1050;
    let theirs: Vec<_> = items(theirs).map(|their| of(compare, their)).collect();
    let missed = |our: &&Value| window.contains(&our["at_ms"].as_i64().unwrap()) && !theirs.contains(&of(compare, our));
    let first = items(ours).take_while(missed).count();
    items(ours).skip(first).cloned().collect()
}

/// Sorts our messages in the recorded order, where the order is random: for tasks that are created at the same time, for results in one
/// message, and for assignments of parallel tasks.
pub(crate) fn aligned(compare: &Compare, theirs: &Value, ours: &Value) -> Value {
    let key = |message: &Value| {
        ["resource_type", "resource_id", "event_type", "task_run_external_id", "action_type", "retry_count"]
            .map(|key| compare.name(message[key].as_str().unwrap_or_default()) + &message[key].to_string())
            .join(" ")
    };
    let translate = |item: &Value| key(&compare.translate(&item["message"], chrono::TimeDelta::zero()));
    let may_move = |item: &Value| {
        let message = &item["message"];
        message["event_type"] == "RESOURCE_EVENT_TYPE_STARTED" || message.get("action_type").is_some()
    };
    let mut ours = ours.as_array().unwrap().clone();
    for (at, their) in items(theirs).enumerate() {
        let expected = translate(their);
        if let Some(found) = (at..ours.len())
            .take_while(|place| may_move(&ours[*place]))
            .find(|place| key(&ours[*place]["message"]) == expected)
        {
            ours[at..=found].rotate_right(1);
        }
        let by_name = |row: &Value| row["task_name"].to_string();
        let names: Vec<_> = items(&their["message"]["results"]).map(by_name).collect();
        if let Some(results) = ours.get_mut(at).and_then(|our| our["message"].get_mut("results")?.as_array_mut()) {
            results.sort_by_key(|row| names.iter().position(|name| *name == by_name(row)));
        }
    }
    ours.into()
}
