//! Messages about several runs at once, and tasks of one run that go on at once: their order is that of chance.

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

/// A run with its tasks in the order of their names, and what comes after which by name.
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

/// A stream by run id that looks for its run for the second time may miss what is told in the same moment.
pub(crate) fn since(compare: &Compare, attached: i64, theirs: &Value, ours: &Value) -> Value {
    let of = |compare: &Compare, item: &Value| {
        [&item["message"]["event_type"], &item["message"]["resource_id"]]
            .map(|text| compare.name(text.as_str().unwrap()))
    };
    let moment = attached + 1000..attached + 1050;
    let theirs: Vec<_> = items(theirs).map(|their| of(compare, their)).collect();
    let missed = |our: &&Value| moment.contains(&our["at_ms"].as_i64().unwrap()) && !theirs.contains(&of(compare, our));
    let first = items(ours).take_while(missed).count();
    items(ours).skip(first).cloned().collect()
}

/// The messages here in the order there: of creations of tasks in one moment, of results in one message, and of what a
/// worker gets for parallel tasks.
pub(crate) fn aligned(compare: &Compare, theirs: &Value, ours: &Value) -> Value {
    let about = |message: &Value| {
        ["resource_type", "resource_id", "event_type", "task_run_external_id", "action_type", "retry_count"]
            .map(|key| compare.name(message[key].as_str().unwrap_or_default()) + &message[key].to_string())
            .join(" ")
    };
    let translate = |item: &Value| about(&compare.translate(&item["message"], chrono::TimeDelta::zero()));
    let is_free = |item: &Value| {
        let message = &item["message"];
        message["event_type"] == "RESOURCE_EVENT_TYPE_STARTED" || message.get("action_type").is_some()
    };
    let mut ours = ours.as_array().unwrap().clone();
    for (at, their) in items(theirs).enumerate() {
        let wanted = translate(their);
        if let Some(found) = (at..ours.len())
            .take_while(|place| is_free(&ours[*place]))
            .find(|place| about(&ours[*place]["message"]) == wanted)
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
