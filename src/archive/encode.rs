//! Writes rows to a Parquet file in memory.

use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, RowGroupMetaData};
use parquet::file::properties::{BloomFilterPosition, EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::ColumnPath;

use super::manifest::IdFilter;
use super::schema::{Cell, Column, Kind, Row, VERSION, VERSION_KEY, schema};
use crate::error::{Error, ErrorKind, Result};

/// The maximum size of a row group. A reader needs memory for one of each file.
const MAX_GROUP_ROWS: usize = 2000;
const MAX_GROUP_BYTES: usize = 8 << 20;

/// How often a Bloom filter claims an id that it does not have. Each time, a lookup reads the file.
const FALSE_POSITIVES: f64 = 0.001;

/// A file, and where its Bloom filters of run ids are.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) content: Bytes,
    pub(super) id_filters: Vec<IdFilter>,
}

/// Writes rows, which must be in order, to a file.
pub(super) fn encode(rows: &[Row]) -> Result<Encoded> {
    encode_columns(rows, Column::ALL, VERSION)
}

/// Writes some columns, as a version of the schema.
pub(super) fn encode_columns(rows: &[Row], columns: &[Column], version: u32) -> Result<Encoded> {
    write(rows, columns, version)
        .map_err(|error| Error::new(ErrorKind::Encode, "failed to encode a file of the archive").with_source(error))
}

fn write(rows: &[Row], columns: &[Column], version: u32) -> std::result::Result<Encoded, ParquetError> {
    let schema = schema(columns).map_err(|error| ParquetError::External(Box::new(error)))?;
    let mut content = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut content, schema, Arc::new(properties(rows.len(), version)))?;
    for group in groups(rows) {
        let mut group_writer = writer.next_row_group()?;
        for column in columns {
            write_column(&mut group_writer, *column, group)?;
        }
        group_writer.close()?;
    }
    let metadata = writer.close()?;
    let id_filters = metadata.row_groups().iter().map(id_filter).collect::<Option<Vec<_>>>();
    Ok(Encoded { content: content.into(), id_filters: id_filters.unwrap_or_default() })
}

/// The Bloom filter of the run ids of a row group.
fn id_filter(group: &RowGroupMetaData) -> Option<IdFilter> {
    let chunk = group.columns().iter().find(|chunk| chunk.column_path().string() == Column::RunId.name())?;
    let offset = u64::try_from(chunk.bloom_filter_offset()?).ok()?;
    Some(IdFilter { offset, bytes: u64::try_from(chunk.bloom_filter_length()?).ok()? })
}

fn properties(rows: usize, version: u32) -> WriterProperties {
    let path = |column: Column| ColumnPath::from(column.name());
    let version = KeyValue::new(VERSION_KEY.to_owned(), version.to_string());
    let mut properties = WriterProperties::builder()
        .set_created_by(format!("hatchet-rs {}", env!("CARGO_PKG_VERSION")))
        .set_key_value_metadata(Some(vec![version]))
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_column_bloom_filter_enabled(path(Column::RunId), true)
        .set_column_bloom_filter_fpp(path(Column::RunId), FALSE_POSITIVES)
        // Together, so that one request reads those of all row groups.
        .set_bloom_filter_position(BloomFilterPosition::End)
        .set_column_bloom_filter_max_ndv(path(Column::RunId), rows.clamp(1, MAX_GROUP_ROWS) as u64)
        .set_column_dictionary_enabled(path(Column::RunId), false)
        .set_column_encoding(path(Column::CreatedAt), Encoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_enabled(path(Column::CreatedAt), false);
    // Payloads differ from each other, and are not searched by range.
    for column in [Column::Input, Column::Output, Column::Outcome, Column::Tasks, Column::Logs] {
        properties = properties
            .set_column_dictionary_enabled(path(column), false)
            .set_column_statistics_enabled(path(column), EnabledStatistics::None);
    }
    properties.build()
}

/// Splits rows into row groups.
fn groups(mut rows: &[Row]) -> Vec<&[Row]> {
    let mut groups = Vec::new();
    while !rows.is_empty() {
        let mut size = 0;
        let fits = |row: &&Row| {
            size += row.size();
            size <= MAX_GROUP_BYTES
        };
        let count = rows.iter().take(MAX_GROUP_ROWS).take_while(fits).count().max(1);
        let (group, rest) = rows.split_at(count);
        groups.push(group);
        rows = rest;
    }
    groups
}

fn write_column(
    group: &mut SerializedRowGroupWriter<'_, &mut Vec<u8>>,
    column: Column,
    rows: &[Row],
) -> std::result::Result<(), ParquetError> {
    let missing = || ParquetError::General(format!("the schema has no column {}", column.name()));
    match column.kind() {
        Kind::Text | Kind::Json => {
            let values: Vec<_> = rows.iter().filter_map(|row| row.text(column).map(ByteArray::from)).collect();
            let levels = levels(column, rows, |row| row.text(column).is_some());
            let mut writer = group.next_column()?.ok_or_else(missing)?;
            writer.typed::<ByteArrayType>().write_batch(&values, levels.as_deref(), None)?;
            writer.close()
        }
        Kind::Int | Kind::Time => {
            let values: Vec<_> = rows.iter().filter_map(|row| row.int(column)).collect();
            let levels = levels(column, rows, |row| row.int(column).is_some());
            let mut writer = group.next_column()?.ok_or_else(missing)?;
            writer.typed::<Int64Type>().write_batch(&values, levels.as_deref(), None)?;
            writer.close()
        }
        Kind::Map => {
            let (definitions, repetitions) = map_levels(column, rows);
            let write = |text: fn(&(String, String)) -> &String, mut writer: SerializedColumnWriter<'_>| {
                let entries = rows.iter().flat_map(|row| row.map(column));
                let values: Vec<_> = entries.map(|entry| ByteArray::from(text(entry).as_str())).collect();
                writer.typed::<ByteArrayType>().write_batch(&values, Some(&definitions), Some(&repetitions))?;
                writer.close()
            };
            write(|(key, _)| key, group.next_column()?.ok_or_else(missing)?)?;
            write(|(_, value)| value, group.next_column()?.ok_or_else(missing)?)
        }
    }
}

/// The definition levels of a column: 1 for a value, 0 for null. None are needed if no row can be null.
fn levels(column: Column, rows: &[Row], has_value: impl Fn(&Row) -> bool) -> Option<Vec<i16>> {
    (!column.is_required()).then(|| rows.iter().map(|row| i16::from(has_value(row))).collect())
}

/// The definition and repetition levels of a map.
fn map_levels(column: Column, rows: &[Row]) -> (Vec<i16>, Vec<i16>) {
    let empty = i16::from(!column.is_required());
    let (mut definitions, mut repetitions) = (Vec::new(), Vec::new());
    for row in rows {
        let entries = row.map(column).len();
        if entries == 0 {
            definitions.push(if *row.cell(column) == Cell::Null { 0 } else { empty });
            repetitions.push(0);
        }
        for entry in 0..entries {
            definitions.push(empty + 1);
            repetitions.push(i16::from(entry > 0));
        }
    }
    (definitions, repetitions)
}
