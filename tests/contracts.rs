//! Compares the `.proto` files in `proto/` with `tests/data/wire.tsv`, a table of the messages, fields, enums and RPCs of Hatchet.
//!
//! The `.proto` files were written for this crate, so only this test ensures that they match the engine. Both sides are converted to
//! sets of lines. A line that only one side has is an error.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may panic")]

use std::collections::{BTreeMap, BTreeSet};

use hatchet::embedded::{Engine, Faults};
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    ServiceDescriptorProto,
};

/// The descriptors that the build script compiled, with the imported well-known types.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hatchet.fds"));

/// The table, with one tab-separated row per line.
const TABLE: &str = include_str!("data/wire.tsv");

/// The versions of Hatchet that the table comes from.
const PIN: &str = include_str!("../proto/PIN");

/// The package of the well-known types, which are not compared.
const WELL_KNOWN: &str = "google.protobuf";

#[test]
fn the_proto_files_match_the_table() {
    let difference = Difference::between(&proto_lines(), &table_lines(TABLE));

    assert!(difference.is_empty(), "the proto files do not match the table\n{difference}");
}

#[test]
fn the_table_has_no_duplicates() {
    assert_eq!(table_lines(TABLE).len(), TABLE.lines().count());
}

/// The line counts in `proto/PIN` detect changes of a table without its versions.
#[test]
fn the_pin_has_the_line_counts_of_the_tables() {
    let pinned = |key| PIN.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = ")).unwrap().parse();
    let operations = include_str!("data/rest.tsv").lines().filter(|line| line.starts_with("operation\t"));

    assert_eq!(pinned("wire-lines"), Ok(TABLE.lines().count()));
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

/// Faults can be injected into each RPC of the embedded engine.
#[tokio::test(start_paused = true)]
async fn each_rpc_is_a_call_of_faults() {
    let engine = Engine::start().await.unwrap();
    let rpcs = proto_lines();
    let methods: BTreeSet<_> = rpcs.iter().filter_map(|line| line.strip_prefix("rpc\t")?.split('\t').nth(1)).collect();
    let named: BTreeSet<_> = Faults::calls().filter(|call| !call.contains('/')).collect();
    assert_eq!(named, methods);
    // All streams can be interrupted.
    let streams = rpcs.iter().filter(|line| {
        line.starts_with("rpc\t") && line.split('\t').nth(4).is_some_and(|response| response.starts_with("stream "))
    });
    let streams: BTreeSet<_> = streams.filter_map(|line| line.split('\t').nth(2)).collect();
    assert_eq!(
        methods.into_iter().filter(|method| engine.faults().interrupt(method).is_ok()).collect::<BTreeSet<_>>(),
        streams
    );
}

// The following tests show that the comparison finds each kind of difference, and only that one.

#[test]
fn the_comparison_finds_an_added_field() {
    let added = "field\tHeartbeatRequest\t3\tmood\tstring";
    let mutated = format!("{TABLE}{added}\n");

    assert_difference(&mutated, &[], &[added]);
}

#[test]
fn the_comparison_finds_a_missing_field() {
    let missing = "field\tHeartbeatRequest\t1\tworker_id\tstring";

    assert_difference(&replaced(missing, None), &[missing], &[]);
}

#[test]
fn the_comparison_finds_a_changed_number() {
    let before = "field\tHeartbeatRequest\t1\tworker_id\tstring";
    let after = "field\tHeartbeatRequest\t7\tworker_id\tstring";

    assert_difference(&replaced(before, Some(after)), &[before], &[after]);
}

#[test]
fn the_comparison_finds_a_changed_type() {
    let before = "field\tWorkerRegisterRequest\t9\tslot_config\tmap<string,int32>";
    let after = "field\tWorkerRegisterRequest\t9\tslot_config\tmap<string,int64>";

    assert_difference(&replaced(before, Some(after)), &[before], &[after]);
}

#[test]
fn the_comparison_finds_a_changed_label() {
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
fn the_comparison_finds_a_stream_that_became_a_unary_call() {
    let before = "rpc\tDispatcher\tListenV2\tWorkerListenRequest\tstream AssignedAction";
    let after = "rpc\tDispatcher\tListenV2\tWorkerListenRequest\tAssignedAction";

    assert_difference(&replaced(before, Some(after)), &[before], &[after]);
}

#[test]
fn the_comparison_finds_a_renumbered_enum_value() {
    let before = "value\tv1.RunStatus\t5\tEVICTED";
    let after = "value\tv1.RunStatus\t6\tEVICTED";

    assert_difference(&replaced(before, Some(after)), &[before], &[after]);
}

#[test]
fn the_comparison_finds_a_missing_reservation() {
    let reserved = "reserved\tCreateWorkflowJobOpts\t3-3";

    assert_difference(&replaced(reserved, None), &[reserved], &[]);
}

/// The lines that only one of two sides has.
#[derive(Debug, Default, PartialEq, Eq)]
struct Difference {
    only_in_proto: Vec<String>,
    only_in_table: Vec<String>,
}

impl Difference {
    fn between(proto: &BTreeSet<String>, table: &BTreeSet<String>) -> Self {
        Self {
            only_in_proto: proto.difference(table).cloned().collect(),
            only_in_table: table.difference(proto).cloned().collect(),
        }
    }

    const fn is_empty(&self) -> bool {
        self.only_in_proto.is_empty() && self.only_in_table.is_empty()
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (title, lines) in [("proto files", &self.only_in_proto), ("table", &self.only_in_table)] {
            writeln!(f, "only in the {title}: {}", lines.len())?;
            for line in lines {
                writeln!(f, "  {}", line.replace('\t', "  "))?;
            }
        }
        Ok(())
    }
}

/// Compares the proto files with a modified table. The difference must be exactly that modification.
fn assert_difference(mutated: &str, only_in_proto: &[&str], only_in_table: &[&str]) {
    let owned = |lines: &[&str]| lines.iter().map(ToString::to_string).collect();
    let expected = Difference { only_in_proto: owned(only_in_proto), only_in_table: owned(only_in_table) };

    assert_eq!(Difference::between(&proto_lines(), &table_lines(mutated)), expected);
}

/// The table with one line replaced or removed. The line must exist.
fn replaced(before: &str, after: Option<&str>) -> String {
    assert!(TABLE.lines().any(|line| line == before), "expected a line of the table, got {before}");
    TABLE
        .lines()
        .filter_map(|line| if line == before { after } else { Some(line) })
        .fold(String::new(), |text, line| text + line + "\n")
}

/// The line of a field with another label, which is the sixth column. A field without a label has five columns.
fn with_label(line: &str, label: Option<&str>) -> String {
    line.split('\t').take(5).chain(label).collect::<Vec<_>>().join("\t")
}

/// The lines of a table.
fn table_lines(table: &str) -> BTreeSet<String> {
    table.lines().map(str::to_owned).collect()
}

/// The lines of the compiled proto files.
fn proto_lines() -> BTreeSet<String> {
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

/// The compiled descriptors without the well-known types.
fn descriptors() -> FileDescriptorSet {
    let mut set = FileDescriptorSet::decode(DESCRIPTORS).expect("the build script encoded it");
    set.file.retain(|file| file.package() != WELL_KNOWN);
    assert!(!set.file.is_empty(), "the build script compiled no proto files");
    set
}

/// All messages by full name, including nested ones, without the generated messages of map entries.
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

/// All enums by full name, including those inside of messages.
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
        // The end of a range is exclusive in a descriptor, and inclusive in the table.
        line(&["reserved", owner, &format!("{}-{}", range.start(), range.end() - 1)])
    }));
    lines
}

/// `field MESSAGE number name type label`, without a label if there is none.
fn field_line(owner: &str, message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let number = field.number().to_string();
    // A map is compiled to a repeated message. The table has the type `map` without a label.
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

/// The label of a field, or its `oneof`.
fn label(message: &DescriptorProto, field: &FieldDescriptorProto) -> Option<String> {
    // Checked before the `oneof`, because the compiler adds one for each optional field.
    if field.proto3_optional() {
        return Some("optional".to_owned());
    }
    if let Some(index) = field.oneof_index {
        let index = usize::try_from(index).expect("an index is not negative");
        return Some(format!("oneof:{}", message.oneof_decl[index].name()));
    }
    (field.label() == Label::Repeated).then(|| "repeated".to_owned())
}

/// The generated message of the entries of a map field. It is nested in the message that has the field.
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

/// The type as in a `.proto` file, with its package.
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

/// A name without the leading dot of fully qualified names in descriptors.
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
