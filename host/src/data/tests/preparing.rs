//! From texts and tables to shards: order, duplicates, interruptions, and every refusal on the way.

use super::*;

#[test]
fn documents_go_over_shard_ends_and_are_counted_where_they_begin() {
    let (_folder, out) = prepared();
    let shards: Vec<Shard> = (0..3).map(|i| Shard::open(&out.join(format!("train-{i:05}.bin"))).unwrap()).collect();
    let ids: Vec<i64> = shards.iter().flat_map(all_ids).collect();
    assert_eq!(bytes::decode(&ids), "\0abcdefghijklmnopqrstuv");
    let sidecars: Vec<&Sidecar> = shards.iter().map(|shard| shard.sidecar().unwrap()).collect();
    assert_eq!(
        sidecars.iter().map(|s| (s.shard, s.shards, s.tokens, s.documents)).collect::<Vec<_>>(),
        [(0, 3, 8, 1), (1, 3, 8, 0), (2, 3, 7, 0)]
    );
    let json = fs::read_to_string(out.join("train-00002.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["sources"][0]["bytes"], &json["sources"][0]["tokens"]), (&22.into(), &7.into()));
    assert!(verify(&[out]).unwrap().outcome().is_ok());
}

#[test]
fn the_same_texts_give_the_same_bytes_anywhere() {
    let texts: Vec<(String, String)> = (0..20).map(|i| (format!("d{}/{i}.md", i % 3), format!("text {i}"))).collect();
    let texts: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let read = |folder: &TempDir| {
        let out = options(folder).output;
        prepare(&options(folder)).unwrap();
        ["train-00000.bin", "train-00000.json", "validation-00000.bin", "validation-00000.json"]
            .map(|name| fs::read(out.join(name)).unwrap())
    };
    let (first, second) = (corpus(&texts), corpus(&texts));
    assert_eq!(read(&first), read(&second));
}

#[test]
fn duplicates_and_empty_files_are_left_out_and_counted() {
    let folder = corpus(&[("a.txt", "same"), ("b.txt", "same"), ("c.txt", ""), ("d.txt", "other")]);
    let summary = prepare(&options(&folder)).unwrap();
    assert_eq!((summary.duplicates, summary.empty), (1, 1));
    assert_eq!((summary.train.documents, summary.validation.documents), (1, 1));
    assert_eq!(summary.train.tokens + summary.validation.tokens, 11);
}

#[test]
fn refusals_of_prepare() {
    let folder = corpus(&[("a.txt", "a"), ("b.txt", "b")]);
    let good = options(&folder);
    let exit = |options: &Prepare| prepare(options).map_err(|fault| fault.exit);
    assert_eq!(exit(&Prepare { shard_tokens: 0, ..good.clone() }), Err(Exit::Usage));
    assert_eq!(exit(&Prepare { shard_tokens: 1 << 31, ..good.clone() }), Err(Exit::Usage));
    assert_eq!(exit(&Prepare { validation_fraction: 1.5, ..good.clone() }), Err(Exit::Usage));
    assert_eq!(exit(&Prepare { inputs: vec![], ..good.clone() }), Err(Exit::Data));
    assert_eq!(exit(&Prepare { inputs: vec![folder.path().join("gone")], ..good.clone() }), Err(Exit::Missing));
    assert_eq!(exit(&Prepare { output: folder.path().join("texts/a.txt/out"), ..good.clone() }), Err(Exit::Write));
    fs::write(folder.path().join("texts/c.txt"), b"ok\xff").unwrap();
    let line = "`texts/c.txt`: not a text: found byte 0xff at offset 2, expected UTF-8; hint: convert the file, \
                for example with `iconv -t utf-8`, or leave it out";
    refused(prepare(&good), folder.path(), line);
    fs::remove_file(folder.path().join("texts/c.txt")).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a refusal leaves nothing behind");
    assert!(prepare(&good).is_ok());
    let again = prepare(&good).unwrap_err();
    assert_eq!(again.exit, Exit::Usage);
    assert!(again.to_string().contains("out` exists: expected a folder to be made; hint: choose another"), "{again}");
}

#[test]
fn what_a_killed_run_left_is_replaced_and_a_running_one_respected() {
    let folder = corpus(&[("a.txt", "a")]);
    let partial = folder.path().join(".out.partial");
    fs::create_dir(&partial).unwrap();
    fs::write(partial.join("train-00007.bin"), "left").unwrap();
    let running = File::open(&partial).unwrap();
    running.try_lock().unwrap();
    let fault = prepare(&options(&folder)).unwrap_err();
    assert!(
        fault.exit == Exit::Unavailable && fault.to_string().contains("another run is preparing this folder"),
        "{fault}"
    );
    assert!(partial.join("train-00007.bin").exists());
    drop(running);
    let link = folder.path().join(".other.partial");
    std::os::unix::fs::symlink(folder.path().join("texts"), link).unwrap();
    let through_link = Prepare { output: folder.path().join("other"), ..options(&folder) };
    assert_eq!(prepare(&through_link).unwrap_err().exit, Exit::Write);
    prepare(&options(&folder)).unwrap();
    assert!(!partial.exists() && !options(&folder).output.join("train-00007.bin").exists());
}

/// Prepares until a file that is not read yet changes; what is finished by then stays under the temporary name.
fn interrupt(options: &Prepare, later: &Path) {
    let good = fs::read(later).unwrap();
    let fault = prepare_with(options, &|progress| {
        if let Progress::Encoding(..) = progress {
            fs::write(later, "other").unwrap();
        }
    });
    let fault = fault.unwrap_err();
    assert!(fault.exit == Exit::Data && fault.to_string().contains("the file changed while it was read"), "{fault}");
    fs::write(later, good).unwrap();
}

#[test]
fn an_interrupted_preparation_is_gone_on_with_where_it_is_the_same() {
    let long: String = (0..700_000).map(|i| format!("line {i}\n")).collect();
    let folder = corpus(&[("a.txt", &long), ("b.txt", "short"), ("c.txt", "end")]);
    let options =
        Prepare { shard_tokens: 500_000, threads: 1, validation_files: vec!["c.txt".into()], ..options(&folder) };
    let (later, partial) = (folder.path().join("texts/b.txt"), folder.path().join(".out.partial"));
    let other = folder.path().join("straight");
    prepare(&Prepare { output: other.clone(), ..options.clone() }).unwrap();
    let same = || {
        let names = fs::read_dir(&other).unwrap().flatten().map(|entry| entry.file_name());
        names.into_iter().all(|name| fs::read(other.join(&name)).ok() == fs::read(options.output.join(&name)).ok())
    };
    interrupt(&options, &later);
    assert!(!options.output.exists());
    let line = open(&partial, 3, 256).unwrap_err().to_string();
    assert!(line.contains(".out.partial`: an unfinished preparation: expected a finished folder"), "{line}");
    assert!(open(&partial.join("train-00000.bin"), 3, 256).is_err(), "nor is one of its shards");
    let resumed = prepare(&options).unwrap().resumed;
    assert!(resumed > 0 && same() && !partial.exists(), "{resumed}");
    let again = || {
        let _ = fs::remove_dir_all(&options.output);
        interrupt(&options, &later);
    };
    again();
    let mut bytes = fs::read(partial.join("train-00001.bin")).unwrap();
    bytes[2000] ^= 1;
    fs::write(partial.join("train-00001.bin"), bytes).unwrap();
    assert_eq!(prepare(&options).unwrap().resumed, 1, "a shard that is not what was noted, and those behind it");
    assert!(same());
    again();
    fs::remove_dir_all(&options.output).unwrap_or_default();
    let smaller = Prepare { shard_tokens: 400_000, ..options.clone() };
    assert_eq!(prepare(&smaller).unwrap().resumed, 0, "other options");
    again();
    fs::write(&later, "another text").unwrap();
    assert_eq!(prepare(&options).unwrap().resumed, 0, "other texts");
}

#[test]
fn any_number_of_threads_writes_the_same_bytes() {
    let texts: Vec<(String, String)> =
        (0..300).map(|i| (format!("{i}.txt"), format!("text {i}\n").repeat(1 + i * i % 3000))).collect();
    let texts: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let folder = corpus(&texts);
    let written = |threads: usize| {
        let output = folder.path().join(format!("out{threads}"));
        let tokenizer = tokenizer::Choice::Gpt2;
        prepare(&Prepare { output: output.clone(), threads, tokenizer, shard_tokens: 100_000, ..options(&folder) })
            .unwrap();
        let mut files: Vec<PathBuf> = fs::read_dir(output).unwrap().flatten().map(|entry| entry.path()).collect();
        files.sort();
        files.iter().map(|file| fs::read(file).unwrap()).collect::<Vec<_>>()
    };
    let one = written(1);
    assert!(one.len() > 10);
    assert!(written(2) == one && written(7) == one);
}

/// A table of rows with and without a text.
fn parquet(path: &Path, texts: &[Option<&str>]) {
    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    let schema =
        "message schema { REQUIRED INT64 id; OPTIONAL BYTE_ARRAY text (UTF8); REPEATED BYTE_ARRAY tags (UTF8); }";
    let schema = std::sync::Arc::new(parquet::schema::parser::parse_message_type(schema).unwrap());
    let compression = parquet::basic::Compression::ZSTD(Default::default());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, properties.into()).unwrap();
    for rows in texts.chunks(300) {
        let mut group = writer.next_row_group().unwrap();
        let ids: Vec<i64> = (0..rows.len() as i64).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<parquet::data_type::Int64Type>().write_batch(&ids, None, None).unwrap();
        column.close().unwrap();
        let values: Vec<ByteArray> = rows.iter().flatten().map(|text| ByteArray::from(*text)).collect();
        let levels: Vec<i16> = rows.iter().map(|text| i16::from(text.is_some())).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let none = vec![0; rows.len()];
        column.typed::<ByteArrayType>().write_batch(&[], Some(&none), Some(&none)).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn the_rows_of_a_table_are_documents() {
    let folder = tempfile::tempdir().unwrap();
    let texts: Vec<String> = (0..1000).map(|i| format!("row {i}")).collect();
    let mut rows: Vec<Option<&str>> = texts.iter().map(|text| Some(text.as_str())).collect();
    let path = folder.path().join("a.parquet");
    parquet(&path, &rows);
    let prepare = |input: &Path, on_bad: OnBad, field: &str| {
        let output = folder.path().join("out");
        let _ = fs::remove_dir_all(&output);
        let text_field = field.to_owned();
        prepare(&Prepare { on_bad, text_field, validation_fraction: 0.0, ..Prepare::new(vec![input.into()], output) })
    };
    let summary = prepare(&path, OnBad::Error, "text").unwrap();
    assert_eq!(summary.train.documents, 1000);
    let source = TokenSource::open(&[folder.path().join("out")], Split::Train, 256).unwrap();
    let text = bytes::decode(&source.shards().iter().flat_map(all_ids).collect::<Vec<_>>());
    assert!(text.split('\0').skip(1).eq(texts.iter().map(String::as_str)));
    let packed = folder.path().join("b.parquet.zst");
    fs::write(&packed, zstd::encode_all(&fs::read(&path).unwrap()[..], 1).unwrap()).unwrap();
    assert_eq!(prepare(&packed, OnBad::Error, "text").unwrap().train, summary.train);

    rows[777] = None;
    parquet(&path, &rows);
    let line = "`a.parquet`, row 778: a bad row: found null, expected a text in column `text`; hint: mend it, or leave such \
                out with `--on-bad-line skip`";
    refused(prepare(&path, OnBad::Error, "text"), folder.path(), line);
    let skipped = prepare(&path, OnBad::Skip(1), "text").unwrap();
    assert_eq!((skipped.train.documents, skipped.bad), (999, 1));
    for (field, found) in [
        ("body", "columns id, text, tags"),
        ("id", "INT64 in a nesting of 0"),
        ("tags", "BYTE_ARRAY in a nesting of 1"),
    ] {
        let line = format!(
            "`a.parquet`: no column of texts `{field}`: found {found}; hint: name the column with `--text-field`"
        );
        refused(prepare(&path, OnBad::Error, field), folder.path(), &line);
    }
}

#[test]
fn a_table_that_unpacks_to_too_much_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let long = "a".repeat(1 << 20);
    parquet(&path, &[Some(long.as_str()); 20]);
    assert!(fs::metadata(&path).unwrap().len() < 1 << 16);
    let fault = count(&path).unwrap_err();
    let line = fault.to_string();
    assert!(
        fault.exit == Exit::Data && line.contains("too much to unpack: found 17825792 bytes from the first"),
        "{line}"
    );
}

#[test]
fn a_damaged_table_is_refused_or_read_and_never_worse() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    parquet(&path, &[Some("one text"), None, Some("another"), Some("")]);
    let good = fs::read(&path).unwrap();
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        if let Err(fault) = count(&path) {
            assert_eq!(fault.exit, Exit::Data, "{fault}");
        }
    };
    for at in 0..good.len() {
        read(&good[..at]);
        for change in [0x01, 0x80, 0xff] {
            let mut changed = good.clone();
            changed[at] ^= change;
            read(&changed);
        }
    }
}
