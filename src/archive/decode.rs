//! Reads rows from the Parquet files of an archive. Only the parts of a file are fetched that are needed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::buf::Reader;
use bytes::{Buf as _, Bytes};
use parquet::bloom_filter::Sbbf;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, FileReader as _, Length};
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::file::statistics::Statistics;
use parquet::record::Field;
use parquet::schema::types::Type;

use super::convert::{INCOMPLETE, PAYLOAD_COLUMNS};
use super::log::corrupt;
use super::manifest::File;
use super::schema::{Cell, Column, Row, VERSION, VERSION_KEY};
use super::store::Store;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::lock;

/// The number of bytes at the end of a file that are fetched first. They nearly always contain the metadata.
const TAIL_BYTES: u64 = 64 << 10;

const NOT_PARQUET: &str = "expected a valid Parquet file, got other content";

/// A file whose metadata has been read.
pub(super) struct FileReader {
    store: Store,
    path: String,
    fetched: Fetched,
    reader: Arc<SerializedFileReader<Fetched>>,
    /// Whether the file has the schema of a newer version of the crate.
    is_newer: bool,
}

/// The parts of a file that have been fetched, by their offset.
#[derive(Debug, Clone)]
struct Fetched {
    length: u64,
    /// The offset of the part that was fetched first, up to the end of the file. A small file is complete with it.
    tail: u64,
    parts: Arc<Mutex<BTreeMap<u64, Bytes>>>,
}

impl Fetched {
    fn add(&self, offset: u64, content: Bytes) {
        lock(&self.parts).insert(offset, content);
    }

    fn part(&self, start: u64) -> Option<Bytes> {
        let parts = lock(&self.parts);
        let (offset, content) = parts.range(..=start).next_back()?;
        let skipped = usize::try_from(start - offset).ok().filter(|skipped| *skipped <= content.len())?;
        Some(content.slice(skipped..))
    }

    fn contains(&self, range: &Range<u64>) -> bool {
        self.part(range.start).is_some_and(|part| part.len() as u64 >= range.end - range.start)
    }

    /// Forgets the parts before the tail.
    fn clear(&self) {
        lock(&self.parts).retain(|offset, _| *offset >= self.tail);
    }
}

impl Length for Fetched {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Fetched {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        let part = self.part(start).ok_or_else(|| ParquetError::EOF(format!("nothing was fetched at {start}")))?;
        Ok(part.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let part = self.part(start).filter(|part| part.len() >= length);
        let part = part.ok_or_else(|| ParquetError::EOF(format!("{length} bytes at {start} were not fetched")))?;
        Ok(part.slice(..length))
    }
}

impl FileReader {
    /// Reads the metadata of a file.
    pub(super) async fn open(store: &Store, file: &File) -> Result<Self> {
        let damaged = |error: ParquetError| corrupt(&file.path, &NOT_PARQUET).with_source(error);
        let tail = file.bytes.saturating_sub(TAIL_BYTES);
        let mut fetched = Fetched { length: file.bytes, tail, parts: Arc::default() };
        loop {
            let range = fetched.tail..file.bytes;
            let tail = read_ranges(store, &file.path, file.bytes, std::slice::from_ref(&range)).await?;
            let tail = tail.into_iter().next().unwrap_or_default();
            fetched.add(range.start, tail.clone());
            match ParquetMetaDataReader::new().try_parse_sized(&tail, file.bytes) {
                Ok(()) => break,
                Err(ParquetError::NeedMoreData(needed)) => fetched.tail = file.bytes.saturating_sub(needed as u64),
                Err(error) => return Err(damaged(error)),
            }
        }
        let reader = SerializedFileReader::new(fetched.clone()).map_err(damaged)?;
        let metadata = reader.metadata().file_metadata();
        let version = metadata.key_value_metadata().into_iter().flatten().find(|entry| entry.key == VERSION_KEY);
        let version = version.and_then(|entry| entry.value.as_deref());
        // A newer schema has the columns of this one.
        let Some(number) = version.and_then(|version| version.parse::<u32>().ok()) else {
            let version = version.map_or_else(|| "none".to_owned(), |version| format!("{version:?}"));
            let problem = format_args!("expected a schema version such as {VERSION}, got {version}");
            return Err(corrupt(&file.path, &problem));
        };
        let is_newer = number > VERSION;
        Ok(Self { store: store.clone(), path: file.path.clone(), fetched, reader: Arc::new(reader), is_newer })
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Whether the file has the schema of a newer version of the crate, so that columns are lost if its rows are written again.
    pub(super) fn is_newer(&self) -> bool {
        self.is_newer
    }

    pub(super) fn groups(&self) -> usize {
        self.reader.metadata().num_row_groups()
    }

    fn group(&self, at: usize) -> Option<&RowGroupMetaData> {
        self.reader.metadata().row_groups().get(at)
    }

    /// The least and the greatest value of a number column in a row group, if the file has them.
    pub(super) fn int_range(&self, group: usize, column: Column) -> Option<(i64, i64)> {
        let columns = self.group(group)?.columns();
        let column = columns.iter().find(|chunk| chunk.column_path().string() == column.name())?;
        match column.statistics()? {
            Statistics::Int64(range) => Some((*range.min_opt()?, *range.max_opt()?)),
            _ => None,
        }
    }

    /// Whether a row group can contain this text in a column with a Bloom filter.
    pub(super) async fn may_contain(&self, group: usize, column: Column, text: &str) -> Result<bool> {
        let Some(chunk) = self
            .group(group)
            .and_then(|group| group.columns().iter().find(|chunk| chunk.column_path().string() == column.name()))
        else {
            return Ok(false);
        };
        let (Some(offset), Some(length)) = (chunk.bloom_filter_offset(), chunk.bloom_filter_length()) else {
            return Ok(true);
        };
        let (Ok(offset), Ok(length)) = (u64::try_from(offset), u64::try_from(length)) else { return Ok(true) };
        self.fetch(std::iter::once(offset..offset.saturating_add(length))).await?;
        let filter = Sbbf::read_from_column_chunk(chunk, &self.fetched).map_err(|error| self.damaged(error))?;
        Ok(filter.is_none_or(|filter| filter.check(text)))
    }

    /// Reads some columns of a row group.
    pub(super) async fn rows(&self, group: usize, columns: impl AsRef<[Column]> + Send + 'static) -> Result<Vec<Row>> {
        let Some(metadata) = self.group(group) else { return Ok(Vec::new()) };
        let is_wanted = |root: &str| columns.as_ref().iter().any(|column| column.name() == root);
        let wanted = metadata
            .columns()
            .iter()
            .filter(|chunk| chunk.column_path().parts().first().is_some_and(|root| is_wanted(root)));
        let ranges = wanted.map(|chunk| {
            let start = chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset());
            // Damaged metadata can contain any number.
            let (start, length) = (u64::try_from(start).unwrap_or(u64::MAX), u64::try_from(chunk.compressed_size()));
            start..start.saturating_add(length.unwrap_or(u64::MAX))
        });
        self.fetch(ranges).await?;
        let (reader, fetched) = (Arc::clone(&self.reader), self.fetched.clone());
        // Decompression takes milliseconds, which must not block the runtime.
        let rows = tokio::task::spawn_blocking(move || {
            let rows = decode(&reader, group, columns.as_ref());
            fetched.clear();
            rows
        });
        match rows.await {
            Ok(rows) => rows.map_err(|error| self.damaged(error)),
            Err(error) if error.is_panic() => Err(corrupt(&self.path, &"the decoder panicked")),
            Err(_) => Err(Error::closed("the runtime")),
        }
    }

    /// Reads the rows of a damaged row group, without the payloads that cannot be read. If the engine still has a run of them, the next
    /// collection archives it again.
    pub(super) async fn rows_of_damaged(&self, group: usize) -> Result<Vec<Row>> {
        let is_payload = |column: &&Column| PAYLOAD_COLUMNS.contains(column);
        let facts: Vec<Column> = Column::ALL.iter().filter(|column| !is_payload(column)).copied().collect();
        let mut rows = self.rows(group, facts).await?;
        for column in PAYLOAD_COLUMNS {
            match self.rows(group, [*column]).await {
                Ok(values) => {
                    for (row, value) in rows.iter_mut().zip(values) {
                        row.set(*column, value.cell(*column).clone());
                    }
                }
                Err(error) if error.kind() == ErrorKind::Corrupt => {}
                Err(error) => return Err(error),
            }
        }
        for row in &mut rows {
            row.set(Column::ArchivedAt, INCOMPLETE);
        }
        Ok(rows)
    }

    async fn fetch(&self, ranges: impl IntoIterator<Item = Range<u64>>) -> Result<()> {
        let ranges: Vec<_> = ranges.into_iter().collect();
        if let Some(range) = ranges.iter().find(|range| range.end > self.fetched.length) {
            return Err(corrupt(
                &self.path,
                &format_args!("expected a range within {} bytes, got {range:?}", self.fetched.length),
            ));
        }
        let missing: Vec<_> = ranges.into_iter().filter(|range| !self.fetched.contains(range)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let parts = read_ranges(&self.store, &self.path, self.fetched.length, &missing).await?;
        for (range, part) in missing.into_iter().zip(parts) {
            self.fetched.add(range.start, part);
        }
        Ok(())
    }

    fn damaged(&self, error: ParquetError) -> Error {
        corrupt(&self.path, &NOT_PARQUET).with_source(error)
    }
}

/// Reads parts of a file. A file that is missing or has another length than when it was written is damaged.
pub(super) async fn read_ranges(store: &Store, path: &str, length: u64, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
    let parts = match store.read_ranges(path, ranges).await {
        Ok(parts) => parts,
        Err(error) => {
            return Err(match store.length(path).await? {
                Some(found) if found == length => error,
                Some(found) => corrupt(path, &format_args!("expected {length} bytes, got {found}")),
                None => corrupt(path, &"expected a file, got none"),
            });
        }
    };
    let is_complete = |(part, range): (&Bytes, &Range<u64>)| part.len() as u64 == range.end - range.start;
    if parts.len() != ranges.len() || !parts.iter().zip(ranges).all(is_complete) {
        return Err(corrupt(path, &format_args!("expected {length} bytes, got fewer")));
    }
    Ok(parts)
}

fn decode(
    reader: &SerializedFileReader<Fetched>,
    group: usize,
    columns: &[Column],
) -> parquet::errors::Result<Vec<Row>> {
    let schema = reader.metadata().file_metadata().schema();
    let is_wanted = |field: &Type| columns.iter().any(|column| column.name() == field.name());
    let fields = schema.get_fields().iter().filter(|field| is_wanted(field)).cloned().collect();
    let projection = Type::group_type_builder(schema.name()).with_fields(fields).build()?;
    let group = reader.get_row_group(group)?;
    let rows = group.get_row_iter(Some(projection))?;
    rows.map(|fields| {
        let mut row = Row::default();
        for (name, field) in fields?.into_columns() {
            if let Some(column) = columns.iter().find(|column| column.name() == name) {
                row.set(*column, cell(field));
            }
        }
        Ok(row)
    })
    .collect()
}

fn cell(field: Field) -> Cell {
    match field {
        Field::Str(text) => Cell::Text(text),
        Field::Long(number) | Field::TimestampMicros(number) => Cell::Int(number),
        Field::MapInternal(map) => Cell::Map(
            map.entries()
                .iter()
                .filter_map(|entry| match entry {
                    (Field::Str(key), Field::Str(value)) => Some((key.clone(), value.clone())),
                    _ => None,
                })
                .collect(),
        ),
        _ => Cell::Null,
    }
}
