//! Capsules of comparisons, made again and checked.

use crate::comparison::Comparison;
use crate::program::gauntlet;
use serde_json::Value;
use std::fs;
use std::path::Path;

#[test]
fn a_capsule_is_made_again_and_a_changed_one_is_found_out() {
    let comparison = Comparison::new();
    comparison.compare(&[]).succeeded();
    let capsule = comparison.path().join("capsule");
    fs::rename(comparison.path().join("out/capsule"), &capsule).unwrap();
    let verify =
        |capsule: &str, work: &str| gauntlet(comparison.path(), &["compare", "--verify", capsule, "--work", work]);
    let results = comparison.path().join("again/results");
    assert_eq!(verify("capsule", "again").succeeded(), "4 runs made again, 4 of them to the bit\n");
    let before = modified(&results);
    assert_eq!(verify("capsule", "again").succeeded(), "4 runs made again, 4 of them to the bit\n");
    assert!(modified(&results) > before, "they are made again, not looked up");
    let elsewhere = verify("capsule", "out");
    let line =
        "`out`: not a folder of a verification: expected a new or an empty one; hint: name another with `--work DIR`";
    assert_eq!((elsewhere.code, elsewhere.errors()), (2, vec![line]));
    // A result that is not the one of its ratios, and a comparison that was made of it.
    let changed = |results: &Path| {
        let mut all = fs::read_dir(results).unwrap().flatten().map(|entry| entry.path());
        let one = all.find(|path| path.display().to_string().contains("adam-final-s1")).unwrap();
        let mut result: Value = serde_json::from_slice(&fs::read(&one).unwrap()).unwrap();
        for at in result["validation"].as_array_mut().unwrap() {
            at["step"] = (at["step"].as_u64().unwrap() + 5).into();
        }
        result["fine"] = serde_json::json!({});
        fs::write(&one, result.to_string()).unwrap();
    };
    changed(&capsule.join("results"));
    let ended = verify("capsule", "third");
    assert!(ended.code == 65 && ended.errors()[0].contains("is not that of the capsule's results"), "{}", ended.stderr);
    changed(&comparison.path().join("out/results"));
    comparison.compare(&["--report"]).succeeded();
    let ended = verify("out/capsule", "fourth");
    assert_eq!((ended.code, ended.errors().len()), (3, 1), "{}", ended.stderr);
    let hashes = fs::read_to_string(capsule.join("hashes.json")).unwrap();
    let data: Value = serde_json::from_str(&hashes).unwrap();
    fs::write(capsule.join("hashes.json"), hashes.replace(data["data"].as_str().unwrap(), "00")).unwrap();
    let ended = verify("capsule", "fifth");
    assert!(ended.code == 65 && ended.errors()[0].contains("data are not those of the capsule"), "{}", ended.stderr);
}

fn modified(path: &Path) -> std::time::SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

#[test]
fn a_capsule_of_an_edited_comparison_is_made_again_as_it_was_judged() {
    let comparison = Comparison::new();
    comparison.compare(&[]).succeeded();
    let file = comparison.path().join("c.toml");
    let text = fs::read_to_string(&file).unwrap();
    // What the runs did beyond the new limit, and below the new targets, is not heard any more.
    let edited = text.replace("max_gradient_equivalents = 24", "max_gradient_equivalents = 9");
    fs::write(&file, edited.replace("target_loss = 5.1\nother_targets = [5.3]", "target_loss = 5.3")).unwrap();
    comparison.compare(&[]).succeeded();
    let verified = gauntlet(comparison.path(), &["compare", "--verify", "out/capsule", "--work", "again"]);
    assert_eq!((verified.code, verified.stdout.as_str()), (0, "4 runs made again, 4 of them to the bit\n"));
}
