//! `.parquet`: a document in each row, as the text of one column.

use std::fs::File;
use std::io::{Seek, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::ByteArrayType;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::inputs::{Input, Packing};
use super::lines::MAX_LINE;
use super::records::{Bad, BadRecords};
use super::unpack::{Caps, Unpacked};
use crate::error::{Exit, Fault, Result};

/// Rows that are read at once.
const ROWS: usize = 256;
/// The largest piece of a column that is read, which the file's own numbers have to keep within.
const MAX_CHUNK_BYTES: i64 = 4 << 30;

/// Hands over the text of the column `field` of each row; gives SHA-256 and size of the file. Rows without are bad
/// records; a file that cannot be understood is bad data (65), also where the reader panics on it.
pub(super) fn read_rows(
    input: &Input,
    caps: Caps,
    field: &str,
    bad: &mut BadRecords,
    mut take: impl FnMut(String) -> Result<()>,
) -> Result<(String, u64)> {
    let (table, file_bytes, sha256) = open(input, caps)?;
    let read = || -> Result<()> {
        let damaged = |error: ParquetError| damaged(&input.path, error.to_string());
        let reader = SerializedFileReader::new(table).map_err(damaged)?;
        let column = column(&input.path, &reader, field)?;
        let (mut row, mut bytes) = (0u64, 0u64);
        for group in 0..reader.num_row_groups() {
            let group = reader.get_row_group(group).map_err(damaged)?;
            let chunk = group.metadata().column(column);
            for bytes in [chunk.compressed_size(), chunk.uncompressed_size()] {
                if !(0..=MAX_CHUNK_BYTES).contains(&bytes) {
                    return Err(self::damaged(&input.path, format!("a column chunk of {bytes} bytes")));
                }
            }
            let ColumnReader::ByteArrayColumnReader(values) = group.get_column_reader(column).map_err(damaged)? else {
                return Err(self::damaged(&input.path, "a column of two types".into()));
            };
            let optional = group.metadata().schema_descr().column(column).max_def_level() > 0;
            each_row(values, optional, &mut |value| {
                row += 1;
                // A column may name one long text again and again.
                bytes += value.map_or(0, <[u8]>::len) as u64;
                caps.check(&input.path, bytes, file_bytes)?;
                match text_of(value, field)? {
                    Ok(text) => take(text),
                    Err(found) => bad.add(format!("`{}`, row {row}: a bad row", input.path.display()), found),
                }
            })
            .map_err(|error| error.unwrap_or_else(|error| self::damaged(&input.path, error)))?;
        }
        Ok(())
    };
    let read = catch_unwind(AssertUnwindSafe(read));
    read.unwrap_or_else(|_| Err(damaged(&input.path, "numbers that contradict each other".into())))?;
    Ok((sha256, file_bytes))
}

/// An error of ours, or one of the file with the reader's words.
type RowError = std::result::Result<Fault, String>;

/// Hands over every value of a column chunk; nothing for a null.
fn each_row(
    mut values: ColumnReaderImpl<ByteArrayType>,
    optional: bool,
    take: &mut dyn FnMut(Option<&[u8]>) -> Result<()>,
) -> Result<(), RowError> {
    let (mut levels, mut found) = (Vec::new(), Vec::new());
    loop {
        levels.clear();
        found.clear();
        let (rows, _, _) = values
            .read_records(ROWS, optional.then_some(&mut levels), None, &mut found)
            .map_err(|error| Err(error.to_string()))?;
        if rows == 0 {
            return Ok(());
        }
        let mut present = found.iter();
        for row in 0..rows {
            let value = if optional && levels.get(row) == Some(&0) { None } else { present.next() };
            take(value.map(parquet::data_type::ByteArray::data)).map_err(Ok)?;
        }
    }
}

fn text_of(value: Option<&[u8]>, field: &str) -> Result<Result<String, Bad>> {
    let expected = || format!("a text in column `{field}`");
    if value.is_some_and(|value| value.len() > MAX_LINE) {
        return Ok(Err(Bad::new(format_args!("a text of more than {} MiB", MAX_LINE >> 20), "a shorter one")));
    }
    Ok(match value.map(std::str::from_utf8) {
        None => Err(Bad::new("null", expected())),
        Some(Err(error)) => Err(Bad::new(format_args!("bytes that are no text at {}", error.valid_up_to()), "UTF-8")),
        Some(Ok(text)) if text.contains('\0') => Err(Bad::new("a text with the character U+0000", "text without it")),
        Some(Ok(text)) => Ok(text.to_owned()),
    })
}

/// The place of the column among the file's columns.
fn column(path: &Path, reader: &SerializedFileReader<File>, field: &str) -> Result<usize> {
    let schema = reader.metadata().file_metadata().schema_descr();
    let place = schema.columns().iter().position(|column| column.path().string() == field);
    let wrong = |found: String| {
        let fault = Fault::new(Exit::Data, format!("`{}`: no column of texts `{field}`", path.display()));
        fault.found(found).hint("name the column with `--text-field`")
    };
    let Some(place) = place else {
        let names: Vec<String> = schema.columns().iter().take(8).map(|column| column.path().string()).collect();
        return Err(wrong(format!("columns {}", names.join(", "))));
    };
    let column = schema.column(place);
    if column.physical_type() != Type::BYTE_ARRAY || column.max_rep_level() > 0 || column.max_def_level() > 1 {
        return Err(wrong(format!("{} in a nesting of {}", column.physical_type(), column.max_def_level())));
    }
    Ok(place)
}

/// The table as a file that can be read at every place, unpacked into a temporary one where it is compressed as a whole.
fn open(input: &Input, caps: Caps) -> Result<(File, u64, String)> {
    let mut file = Unpacked::open(input, caps)?;
    let mut whole = match input.packing {
        Packing::Plain => None,
        _ => Some(tempfile::tempfile().map_err(|error| Fault::writing(&std::env::temp_dir(), &error))?),
    };
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        if let Some(whole) = &mut whole {
            whole.write_all(&buffer[..read]).map_err(|error| Fault::writing(&std::env::temp_dir(), &error))?;
        }
    }
    let (sha256, bytes) = file.raw();
    let failed = |error| Fault::reading(&input.path, &error);
    let mut table = whole.map_or_else(|| File::open(&input.path), Ok).map_err(failed)?;
    table.rewind().map_err(failed)?;
    Ok((table, bytes, sha256))
}

fn damaged(path: &Path, found: String) -> Fault {
    let fault = Fault::new(Exit::Data, format!("`{}`: not sound parquet data", path.display()));
    fault.found(found.lines().next().unwrap_or_default()).hint("copy the file again, or write it again")
}
