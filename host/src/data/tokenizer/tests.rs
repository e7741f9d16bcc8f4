//! Texts through every tokenizer, and files that are none.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::LazyLock;
use tempfile::TempDir;

const TEXT: &str =
    "The king doth wake tonight and takes his rouse,\nKeeps wassail, and the swaggering up-spring reels.\n";

/// A folder with a text and a tokenizer of 300 ids learnt from it.
fn trained() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), TEXT.repeat(3)).unwrap();
    let output = folder.path().join("t.json");
    let trained = train_tokenizer(&options(folder.path(), &output)).unwrap();
    assert_eq!((trained.documents, trained.bytes), (1, 3 * TEXT.len() as u64));
    assert_eq!(trained.vocab_size, 300);
    (folder, output)
}

fn options(folder: &Path, output: &Path) -> TrainTokenizer {
    TrainTokenizer {
        inputs: vec![folder.join("a.txt")],
        output: output.into(),
        vocab_size: 300,
        min_frequency: 2,
        validation_fraction: 0.0,
        validation_files: vec![],
        text_field: "text".into(),
        on_bad: crate::data::OnBad::Error,
        threads: 2,
    }
}

fn back(encoder: &Encoder, text: &str) -> String {
    let ids: Vec<i64> = encoder.encode(text).unwrap().into_iter().map(i64::from).collect();
    assert!(ids.iter().all(|&id| id < encoder.described().vocab_size as i64));
    encoder.decode(&ids)
}

#[test]
fn gpt2_has_the_ids_of_gpt2() {
    let gpt2 = Encoder::open(&Choice::Gpt2).unwrap();
    assert_eq!(gpt2.encode("Hello world").unwrap(), [15496, 995]);
    assert_eq!(gpt2.encode("<|endoftext|>").unwrap(), [27, 91, 437, 1659, 5239, 91, 29], "a text, not a separator");
    assert_eq!(gpt2.decode(&[15496, 50256, 995, -1, 1 << 40]), "Hello world");
    assert_eq!((gpt2.described().vocab_size, gpt2.described().separator), (50_257, 50_256));
}

#[test]
fn a_tokenizer_is_learnt_twice_the_same_and_shortens_its_texts() {
    let (folder, path) = trained();
    let again = folder.path().join("u.json");
    train_tokenizer(&TrainTokenizer { threads: 1, ..options(folder.path(), &again) }).unwrap();
    assert!(fs::read(&path).unwrap() == fs::read(&again).unwrap());
    let encoder = Encoder::open(&Choice::File(path.clone())).unwrap();
    let ids = encoder.encode(TEXT).unwrap();
    assert!(ids.len() * 10 < TEXT.len() * 7, "{} tokens of {} bytes", ids.len(), TEXT.len());
    assert_eq!(encoder.described().separator, 0);
    assert!(!encoder.encode("a <|endoftext|> b").unwrap().contains(&0), "what looks like a separator is text");
    let name = encoder.described().name.clone();
    assert!(name.starts_with("json-") && name.len() == 21, "{name}");
    fs::rename(&path, folder.path().join(FILE)).unwrap();
    let place = [folder.path().to_owned()];
    assert_eq!(Encoder::named(&name, &place).unwrap().described(), encoder.described());
    let other = Encoder::named("json-0000000000000000", &place).unwrap_err();
    assert!(other.exit == Exit::Data && other.to_string().contains(&format!("found `{name}` in")), "{other}");
    assert!(Encoder::named("json-0000000000000000", &[]).unwrap_err().to_string().contains("found no such file"));
}

#[test]
fn refusals_of_training() {
    let (folder, path) = trained();
    let good = options(folder.path(), &folder.path().join("v.json"));
    let exit = |options: &TrainTokenizer| train_tokenizer(options).map_err(|fault| fault.exit);
    assert_eq!(exit(&TrainTokenizer { output: path, ..good.clone() }), Err(Exit::Usage));
    assert_eq!(exit(&TrainTokenizer { vocab_size: 257, ..good.clone() }), Err(Exit::Usage));
    assert_eq!(exit(&TrainTokenizer { inputs: vec![], ..good.clone() }), Err(Exit::Data));
    assert_eq!(exit(&TrainTokenizer { output: folder.path().join("no/folder"), ..good }), Err(Exit::Write));
}

/// Every way in which a file is no tokenizer: one line, 65, and no panic.
#[test]
fn refusals_of_files() {
    let (_folder, path) = trained();
    let good: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let with = |pointer: &str, value: Value| {
        let mut changed = good.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        changed.to_string().into_bytes()
    };
    let mut vocab = good["model"]["vocab"].clone();
    vocab["!"] = json!(2);
    let twice = vocab.clone();
    vocab["!"] = json!(4_000_000_000u32);
    let gap = vocab;
    let merges = good["model"]["merges"].as_array().unwrap();
    let twice_merged = [&merges[..], &merges[..1]].concat();
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let regex = |pattern: &str| {
        with(
            "/pre_tokenizer",
            json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false}),
        )
    };
    let table: [(&str, Vec<u8>, &str); 13] = [
        ("no JSON", b"tokens".to_vec(), "expected"),
        ("empty", vec![], "EOF"),
        ("cut", with("/version", json!("1.0"))[..200].to_vec(), "EOF"),
        ("deep", [b"{\"model\": ", &deep[..]].concat(), ""),
        ("no model", b"{}".to_vec(), "missing field `model`"),
        ("another model", with("/model", json!({"type": "Nothing", "vocab": {}, "merges": []})), ""),
        ("wrong type", with("/model/vocab", json!({"a": "b"})), ""),
        ("merge of no token", with("/model/merges", json!([["q", "no such token"]])), "out of vocabulary"),
        ("merge twice", with("/model/merges", Value::Array(twice_merged)), "twice"),
        ("ids twice", with("/model/vocab", twice), "of one id 2"),
        ("gap", with("/model/vocab", gap), "no token of id"),
        ("no separator", with("/added_tokens", json!([])), ""),
        ("bad expression", regex("(unclosed"), ""),
    ];
    for (name, bytes, part) in table {
        // The separator is also in the vocabulary; without it there, no token is left to separate with.
        let bytes = match name {
            "no separator" => String::from_utf8(bytes).unwrap().replace("<|endoftext|>", "<other>").into_bytes(),
            _ => bytes,
        };
        let fault = Encoder::of_json(Path::new("t.json"), &bytes).unwrap_err();
        let line = fault.to_string();
        assert!(
            fault.exit == Exit::Data && line.starts_with("`t.json`: not a tokenizer.json: found"),
            "{name}: {line}"
        );
        assert!(line.contains(part) && !line.contains('\n'), "{name}: {line}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 40).unwrap();
    let fault = Encoder::open(&Choice::File(file.path().into())).unwrap_err();
    assert!(fault.to_string().contains("found more than 64 MiB"), "{fault}");
}

/// An expression that backtracks without end gives up; the text is refused, and nothing hangs.
#[test]
fn an_expression_without_end_is_an_error() {
    let (_folder, path) = trained();
    let mut file: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    file["pre_tokenizer"] = json!({
        "type": "Split", "pattern": {"Regex": "(?:(?=a)a+)+(?!b)$"}, "behavior": "Isolated", "invert": false,
    });
    let encoder = Encoder::of_json(Path::new("t.json"), file.to_string().as_bytes()).unwrap();
    let fault = encoder.encode(&("a".repeat(5000) + "b")).map(|ids| ids.len());
    assert!(fault.as_ref().is_err_and(|fault| fault.exit == Exit::Data) || fault.is_ok_and(|ids| ids > 0));
}

/// Text that has much of what GPT-2's rule tells apart.
fn tricky() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[a-z]{1,4}",
        "[0-9]{1,3}",
        "[ \n\t\r]{1,4}",
        "'(s|t|re|ve|m|ll|d|x)",
        "[.,!?'\"-]{1,3}",
        Just("<|endoftext|>".to_owned()),
        "[\u{a0}\u{2003}\u{e9}\u{4e2d}\u{301}\u{1f600}\u{660}\u{2167}]{1,3}",
        any::<String>(),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

/// Rules to split by, with a normalizer or a token beside the vocabulary: the learnt one's, Llama 3's, Qwen 2's, one of several
/// expressions and look-behind, and one that has no way by words.
fn kinds() -> [(&'static str, Value, bool); 5] {
    let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let sequence = |splits: Vec<Value>| json!({"type": "Sequence", "pretokenizers": splits});
    let modern = |digits: &str| {
        split(&format!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ))
    };
    let added = json!({"id": 300, "content": "'d<|", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": false});
    [
        ("learnt", json!({}), true),
        ("llama3", json!({"pre_tokenizer": sequence(vec![modern("{1,3}"), bytes.clone()])}), true),
        (
            "qwen2",
            json!({"pre_tokenizer": sequence(vec![modern(""), bytes.clone()]), "normalizer": {"type": "NFC"}, "added": added}),
            true,
        ),
        (
            "several",
            json!({"pre_tokenizer": sequence(vec![split(r"\p{N}{1,2}"), split("(?<=[ab])e|[\u{4e00}-\u{9fa5}]+"), modern("+"), bytes])}),
            true,
        ),
        (
            "metaspace",
            json!({"pre_tokenizer": {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "never"}}),
            false,
        ),
    ]
}

/// The learnt file with another rule.
fn of_kind(mut file: Value, rule: &Value) -> Vec<u8> {
    for (key, value) in rule.as_object().unwrap() {
        match key.as_str() {
            "added" => file["added_tokens"].as_array_mut().unwrap().push(value.clone()),
            key => file[key] = value.clone(),
        }
    }
    file.to_string().into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The split into words and the memory of words change no id.
    #[test]
    fn words_have_the_ids_that_the_whole_text_has(text in tricky()) {
        static OF_FILES: LazyLock<Vec<(&str, Encoder, tokenizers::Tokenizer)>> = LazyLock::new(|| {
            let (_folder, path) = trained();
            let learnt: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let opened = kinds().into_iter().map(|(name, rule, by_words)| {
                let bytes = of_kind(learnt.clone(), &rule);
                let mut whole = tokenizers::Tokenizer::from_bytes(&bytes).unwrap();
                whole.set_encode_special_tokens(true);
                assert_eq!(byte_level::ByWords::of(&whole).is_some(), by_words, "{name}");
                (name, Encoder::of_json(&path, &bytes).unwrap(), whole)
            });
            opened.collect()
        });
        static GPT2: LazyLock<(Encoder, CoreBPE)> =
            LazyLock::new(|| (Encoder::open(&Choice::Gpt2).unwrap(), tiktoken_rs::r50k_base().unwrap()));
        for (name, encoder, whole) in OF_FILES.iter() {
            let ids = whole.encode_fast(text.as_str(), false).unwrap().get_ids().to_vec();
            prop_assert_eq!(encoder.encode(&text).unwrap(), ids, "{}", name);
        }
        prop_assert_eq!(GPT2.0.encode(&text).unwrap(), GPT2.1.encode_ordinary(&text));
    }
}

/// What would be changed, or taken out, before the split goes the general way.
#[test]
fn a_text_that_is_not_as_it_is_split_has_no_way_by_words() {
    let (_folder, path) = trained();
    let learnt: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let [_, _, (_, qwen2, _), ..] = kinds();
    let tokenizer = tokenizers::Tokenizer::from_bytes(of_kind(learnt, &qwen2)).unwrap();
    let by_words = byte_level::ByWords::of(&tokenizer).unwrap();
    let takes = |text: &str| by_words.encode(text).is_some();
    assert!(takes("the king's \u{e9}t\u{e9}, \u{4e2d}") && takes(""));
    assert!(!takes("e\u{301}"), "brought to one character first");
    assert!(!takes("he'd<|"), "a token beside the vocabulary");
}

proptest! {
    #[test]
    fn every_text_comes_back(text in any::<String>()) {
        static ENCODERS: LazyLock<[Encoder; 3]> = LazyLock::new(|| {
            let (_folder, path) = trained();
            [Choice::Bytes, Choice::Gpt2, Choice::File(path)].map(|choice| Encoder::open(&choice).unwrap())
        });
        for encoder in ENCODERS.iter() {
            prop_assert_eq!(&back(encoder, &text), &text);
        }
    }
}
