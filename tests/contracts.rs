//! Holds the protobuf contract in `proto/` against a table of facts about Hatchet's own.
//!
//! The `.proto` files are written by us, so nothing but this test keeps them what the engine
//! speaks. Both sides are turned into the same kind of lines and compared as sets; drift in either
//! direction fails: a line that only we have as well as one that only the facts have.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop on what it did not expect"
)]

use std::collections::{BTreeMap, BTreeSet};

use hatchet::embedded::Faults;
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    ServiceDescriptorProto,
};

/// What the build script compiled: our contract, with the well-known types that it imports.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hatchet.fds"));

/// The facts, one a line, tab-separated.
const FACTS: &str = include_str!("data/wire.tsv");

/// The versions of Hatchet that the facts come from.
const PIN: &str = include_str!("../proto/PIN");

/// The package of the well-known types, which are not ours to compare.
const WELL_KNOWN: &str = "google.protobuf";

#[test]
fn the_contract_and_the_facts_say_the_same() {
    let difference = Difference::between(&contract(), &facts(FACTS));

    assert!(difference.is_empty(), "the contract has drifted\n{difference}");
}

#[test]
fn the_facts_state_nothing_twice() {
    assert_eq!(facts(FACTS).len(), FACTS.lines().count());
}

/// Tables that change without their versions would make the versions wrong.
#[test]
fn the_pin_counts_the_facts() {
    let pinned = |key| PIN.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = ")).unwrap().parse();
    let operations = include_str!("data/rest.tsv").lines().filter(|line| line.starts_with("operation\t"));

    assert_eq!(pinned("wire-facts"), Ok(FACTS.lines().count()));
    assert_eq!(pinned("rest-operations"), Ok(operations.count()));
}

#[test]
fn no_field_number_is_used_twice_in_a_message() {
    for (owner, message) in messages(&descriptors()) {
        let numbers = message.field.iter().map(|field| (field.number(), field.name()));
        assert_distinct(&owner, numbers);
    }
}

#[test]
fn no_reserved_number_is_used() {
    for (owner, message) in messages(&descriptors()) {
        for field in &message.field {
            let reserved =
                message.reserved_range.iter().any(|range| (range.start()..range.end()).contains(&field.number()));
            assert!(!reserved, "{owner}.{} has a reserved number", field.name());
        }
    }
}

#[test]
fn no_enum_number_is_used_twice_in_an_enum() {
    for (owner, enumeration) in enums(&descriptors()) {
        let numbers = enumeration.value.iter().map(|value| (value.number(), value.name()));
        assert_distinct(&owner, numbers);
    }
}

/// What can be made to go wrong on the embedded engine is all that can be called.
#[test]
fn each_call_of_the_contract_has_a_name_among_the_faults() {
    let contract = contract();
    let methods: BTreeSet<_> =
        contract.iter().filter_map(|line| line.strip_prefix("rpc\t")?.split('\t').nth(1)).collect();
    let named: BTreeSet<_> = Faults::calls().filter(|call| !call.contains('/')).collect();
    assert_eq!(named, methods);
    // And what can be cut is all that answers with a stream.
    let streams = contract.iter().filter(|line| {
        line.starts_with("rpc\t") && line.split('\t').nth(4).is_some_and(|answer| answer.starts_with("stream "))
    });
    let streams: BTreeSet<_> = streams.filter_map(|line| line.split('\t').nth(2)).collect();
    assert_eq!(
        methods.into_iter().filter(|method| Faults::default().cut(method).is_ok()).collect::<BTreeSet<_>>(),
        streams
    );
}

// A comparison that never finds anything would pass as well. These show that it finds each kind of
// drift, and nothing beside it.

#[test]
fn the_comparison_notices_an_added_field() {
    let added = "field\tHeartbeatRequest\t3\tmood\tstring";
    let mutated = format!("{FACTS}{added}\n");

    assert_difference(&mutated, &[], &[added]);
}

#[test]
fn the_comparison_notices_a_missing_field() {
    let missing = "field\tHeartbeatRequest\t1\tworker_id\tstring";

    assert_difference(&replaced(missing, None), &[missing], &[]);
}

#[test]
fn the_comparison_notices_a_changed_number() {
    let before = "field\tHeartbeatRequest\t1\tworker_id\tstring";
    let after = "field\tHeartbeatRequest\t7\tworker_id\tstring";

    assert_difference(&replaced(before, Some(after)), &[before], &[after]);
}

#[test]
fn the_comparison_notices_a_changed_type() {
    let before = "field\tWorkerRegisterRequest\t9\tslot_config\tmap<string,int32>";
    let after = "field\tWorkerRegisterRequest\t9\tslot_config\tmap<string,int64>";

    assert_difference(&replaced(before, Some(after)), &[before], &[after]);
}

#[test]
fn the_comparison_notices_a_changed_label() {
    let plain = "field\tHeartbeatRequest\t1\tworker_id\tstring";
    let optional = "field\tStepRunResult\t4\terror\tstring\toptional";
    let repeated = "field\tEvents\t1\tevents\tEvent\trepeated";
    let one_of = "field\tv1.DurableTaskRequest\t2\tmemo\tv1.DurableTaskMemoRequest\toneof:message";

    for (before, label) in [
        (plain, Some("optional")),
        (optional, None),
        (optional, Some("repeated")),
        (repeated, None),
        (one_of, Some("oneof:other")),
        (one_of, None),
    ] {
        let after = with_label(before, label);
        assert_difference(&replaced(before, Some(&after)), &[before], &[&after]);
    }
}

#[test]
fn the_comparison_notices_a_stream_that_became_a_single_answer() {
    let before = "rpc\tDispatcher\tListenV2\tWorkerListenRequest\tstream AssignedAction";
    let after = "rpc\tDispatcher\tListenV2\tWorkerListenRequest\tAssignedAction";

    assert_difference(&replaced(before, Some(after)), &[before], &[after]);
}

#[test]
fn the_comparison_notices_a_renumbered_enum_value() {
    let before = "value\tv1.RunStatus\t5\tEVICTED";
    let after = "value\tv1.RunStatus\t6\tEVICTED";

    assert_difference(&replaced(before, Some(after)), &[before], &[after]);
}

#[test]
fn the_comparison_notices_a_lost_reservation() {
    let reserved = "reserved\tCreateWorkflowJobOpts\t3-3";

    assert_difference(&replaced(reserved, None), &[reserved], &[]);
}

/// The lines that only one of two sides has.
#[derive(Debug, Default, PartialEq, Eq)]
struct Difference {
    only_in_contract: Vec<String>,
    only_in_facts: Vec<String>,
}

impl Difference {
    fn between(contract: &BTreeSet<String>, facts: &BTreeSet<String>) -> Self {
        Self {
            only_in_contract: contract.difference(facts).cloned().collect(),
            only_in_facts: facts.difference(contract).cloned().collect(),
        }
    }

    const fn is_empty(&self) -> bool {
        self.only_in_contract.is_empty() && self.only_in_facts.is_empty()
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (title, lines) in [("contract", &self.only_in_contract), ("facts", &self.only_in_facts)] {
            writeln!(f, "only in the {title}: {}", lines.len())?;
            for line in lines {
                writeln!(f, "  {}", line.replace('\t', "  "))?;
            }
        }
        Ok(())
    }
}

/// Compares the contract with facts that were tampered with. They are one change away from the
/// real ones, so exactly that change has to come out.
fn assert_difference(mutated: &str, only_in_contract: &[&str], only_in_facts: &[&str]) {
    let owned = |lines: &[&str]| lines.iter().map(ToString::to_string).collect();
    let expected = Difference { only_in_contract: owned(only_in_contract), only_in_facts: owned(only_in_facts) };

    assert_eq!(Difference::between(&contract(), &facts(mutated)), expected);
}

/// The facts with one line replaced, or taken out. The line has to be there, otherwise the tests
/// above would mutate nothing.
fn replaced(before: &str, after: Option<&str>) -> String {
    assert!(FACTS.lines().any(|line| line == before), "not among the facts: {before}");
    FACTS
        .lines()
        .filter_map(|line| if line == before { after } else { Some(line) })
        .fold(String::new(), |text, line| text + line + "\n")
}

/// A field's line with another label. The label is the sixth column, and absent for a plain field.
fn with_label(line: &str, label: Option<&str>) -> String {
    line.split('\t').take(5).chain(label).collect::<Vec<_>>().join("\t")
}

/// The lines of a table of facts.
fn facts(table: &str) -> BTreeSet<String> {
    table.lines().map(str::to_owned).collect()
}

/// The lines of the compiled contract.
fn contract() -> BTreeSet<String> {
    let descriptors = descriptors();
    let mut lines = BTreeSet::new();
    for (owner, message) in messages(&descriptors) {
        lines.extend(message_lines(&owner, message));
    }
    for (owner, enumeration) in enums(&descriptors) {
        lines.extend(enum_lines(&owner, enumeration));
    }
    for (owner, service) in services(&descriptors) {
        lines.extend(service.method.iter().map(|method| rpc_line(&owner, method)));
    }
    lines
}

/// The compiled contract without the well-known types.
fn descriptors() -> FileDescriptorSet {
    let mut set = FileDescriptorSet::decode(DESCRIPTORS).expect("the build script encoded it");
    set.file.retain(|file| file.package() != WELL_KNOWN);
    assert!(!set.file.is_empty(), "there is no contract to look at");
    set
}

/// All messages by full name, nested ones too, without those that stand for the entry of a map.
fn messages(set: &FileDescriptorSet) -> BTreeMap<String, &DescriptorProto> {
    let mut pending: Vec<_> = set
        .file
        .iter()
        .flat_map(|file| file.message_type.iter().map(|message| (full_name(file.package(), message.name()), message)))
        .collect();
    let mut found = BTreeMap::new();
    while let Some((name, message)) = pending.pop() {
        let nested = message.nested_type.iter().filter(|inner| !is_map_entry(inner));
        pending.extend(nested.map(|inner| (full_name(&name, inner.name()), inner)));
        found.insert(name, message);
    }
    found
}

/// All enums by full name, those inside of messages too.
fn enums(set: &FileDescriptorSet) -> BTreeMap<String, &EnumDescriptorProto> {
    let outer = set
        .file
        .iter()
        .flat_map(|file| file.enum_type.iter().map(|item| (full_name(file.package(), item.name()), item)));
    let inner = messages(set)
        .into_iter()
        .flat_map(|(owner, message)| message.enum_type.iter().map(move |item| (full_name(&owner, item.name()), item)));
    outer.chain(inner).collect()
}

/// All services by full name.
fn services(set: &FileDescriptorSet) -> BTreeMap<String, &ServiceDescriptorProto> {
    set.file
        .iter()
        .flat_map(|file| file.service.iter().map(|item| (full_name(file.package(), item.name()), item)))
        .collect()
}

/// `message NAME`, and a line for each field and each reserved range.
fn message_lines(owner: &str, message: &DescriptorProto) -> Vec<String> {
    let mut lines = vec![line(&["message", owner])];
    lines.extend(message.field.iter().map(|field| field_line(owner, message, field)));
    lines.extend(message.reserved_range.iter().map(|range| {
        // The descriptor's range ends before its end, the one of the facts with it.
        line(&["reserved", owner, &format!("{}-{}", range.start(), range.end() - 1)])
    }));
    lines
}

/// `field MESSAGE number name type label`, the label being left out where there is none.
fn field_line(owner: &str, message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let number = field.number().to_string();
    // A map is on the wire a repeated message made by the compiler; the facts say `map` and no
    // label.
    let (kind, label) = map_entry(owner, message, field).map_or_else(
        || (type_name(field), label(message, field)),
        |entry| {
            let (key, value) = (type_name(&entry.field[0]), type_name(&entry.field[1]));
            (format!("map<{key},{value}>"), None)
        },
    );
    let mut columns = vec!["field", owner, &number, field.name(), &kind];
    columns.extend(label.as_deref());
    line(&columns)
}

/// `enum NAME` and `value ENUM number name`.
fn enum_lines(owner: &str, enumeration: &EnumDescriptorProto) -> Vec<String> {
    let mut lines = vec![line(&["enum", owner])];
    lines.extend(
        enumeration.value.iter().map(|value| line(&["value", owner, &value.number().to_string(), value.name()])),
    );
    lines
}

/// `rpc SERVICE method request response`.
fn rpc_line(owner: &str, method: &MethodDescriptorProto) -> String {
    let request = streamed(method.client_streaming(), method.input_type());
    let response = streamed(method.server_streaming(), method.output_type());
    line(&["rpc", owner, method.name(), &request, &response])
}

fn streamed(is_stream: bool, type_name: &str) -> String {
    let prefix = if is_stream { "stream " } else { "" };
    format!("{prefix}{}", relative(type_name))
}

/// What stands before a field, or around it.
fn label(message: &DescriptorProto, field: &FieldDescriptorProto) -> Option<String> {
    // Before the `oneof`, because the compiler gives each optional field one of its own.
    if field.proto3_optional() {
        return Some("optional".to_owned());
    }
    if let Some(index) = field.oneof_index {
        let index = usize::try_from(index).expect("an index is not negative");
        return Some(format!("oneof:{}", message.oneof_decl[index].name()));
    }
    (field.label() == Label::Repeated).then(|| "repeated".to_owned())
}

/// The message that stands for an entry of this field, if the field is a map. It is nested in the
/// message that has the map.
fn map_entry<'a>(
    owner: &str,
    message: &'a DescriptorProto,
    field: &FieldDescriptorProto,
) -> Option<&'a DescriptorProto> {
    message
        .nested_type
        .iter()
        .filter(|inner| is_map_entry(inner))
        .find(|inner| full_name(owner, inner.name()) == relative(field.type_name()))
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(prost_types::MessageOptions::map_entry)
}

/// The type as it is written in a `.proto` file, with its package.
fn type_name(field: &FieldDescriptorProto) -> String {
    let scalar = match field.r#type() {
        Type::Message | Type::Enum => return relative(field.type_name()).to_owned(),
        Type::Double => "double",
        Type::Float => "float",
        Type::Int64 => "int64",
        Type::Uint64 => "uint64",
        Type::Int32 => "int32",
        Type::Fixed64 => "fixed64",
        Type::Fixed32 => "fixed32",
        Type::Bool => "bool",
        Type::String => "string",
        Type::Bytes => "bytes",
        Type::Uint32 => "uint32",
        Type::Sfixed32 => "sfixed32",
        Type::Sfixed64 => "sfixed64",
        Type::Sint32 => "sint32",
        Type::Sint64 => "sint64",
        Type::Group => panic!("{} is a group, which proto3 does not have", field.name()),
    };
    scalar.to_owned()
}

/// A name without the dot that says in a descriptor that it is complete.
fn relative(name: &str) -> &str {
    name.strip_prefix('.').unwrap_or(name)
}

fn full_name(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") }
}

fn line(columns: &[&str]) -> String {
    columns.join("\t")
}

fn assert_distinct<'a>(owner: &str, numbers: impl Iterator<Item = (i32, &'a str)>) {
    let mut names = BTreeMap::new();
    for (number, name) in numbers {
        if let Some(other) = names.insert(number, name) {
            panic!("{owner} has the number {number} twice: {other} and {name}");
        }
    }
}
