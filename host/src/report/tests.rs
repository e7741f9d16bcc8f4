//! Reports of written records, good, torn and hostile.

use super::chart::{Chart, Curve, Size, Stroke};
use super::*;
use crate::error::Exit;
use crate::events::{Evaluated, Event, Finished, Started, Step};
use proptest::prelude::*;
use std::fs;

fn step(step: u64, loss: Option<f64>) -> Event {
    Event::Step(Step {
        step,
        loss,
        schedule: 1.0,
        tokens: 100 * step,
        line_search_tokens: step,
        flops: 1e9 * step as f64,
        gradient_equivalents: 2.0 * step as f64,
        seconds: 0.5,
        call_seconds: 0.4,
        data_seconds: 0.0,
        param_norm: None,
        calls: Default::default(),
        rejected: None,
        metrics: Default::default(),
    })
}

fn evaluated(step: u64, loss: f64) -> Event {
    Event::Evaluated(Evaluated { step, loss, bits_per_byte: None, tokens: 64, at: "params".into(), seconds: 0.1 })
}

fn resumed(step: u64) -> Event {
    Event::Resumed { step, checkpoint: "c".into(), tokens: 0, line_search_tokens: 0, flops: 0.0 }
}

fn started(plugin: &str) -> Event {
    let text = String::from;
    Event::Started(Started {
        version: text("0.1.0"),
        commit: text("unknown"),
        libtorch: text("2.13.0"),
        device: text("cpu"),
        threads: 2,
        seed: 0,
        plugin: plugin.into(),
        plugin_sha256: text("00"),
        model: text("tiny"),
        num_params: 1_014_240,
        state_bytes: 0,
        tokens_per_step: 100,
        micro_batch_size: 1,
        data: text("00"),
        epoch_tokens: 1000,
        max_steps: Some(4),
        lr: None,
        timing: text("synchronised"),
        checkpoint_seconds: None,
        checkpoint_steps: None,
    })
}

fn finished(exit_code: u8, error: Option<&str>) -> Event {
    let reason = if exit_code == 0 { "max_steps" } else { "error" };
    let error = error.map(str::to_owned);
    Event::Finished(Finished { step: 4, reason: reason.into(), exit_code, error, validation_loss: None, seconds: 9.0 })
}

/// The record's text: an event a line.
fn record(events: &[(f64, Event)]) -> String {
    let line = |(elapsed, event): &(f64, Event)| {
        let mut line = serde_json::to_value(event).unwrap();
        line["elapsed"] = (*elapsed).into();
        format!("{line}\n")
    };
    events.iter().map(line).collect()
}

/// A run's folder of this name with this record.
fn run(parent: &Path, name: &str, record: &[u8]) -> PathBuf {
    let folder = parent.join(name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("events.jsonl"), record).unwrap();
    folder
}

fn history(record: &[u8]) -> History {
    let parent = tempfile::tempdir().unwrap();
    History::read(&run(parent.path(), "a", record)).unwrap()
}

fn four_steps() -> Vec<(f64, Event)> {
    vec![
        (0.0, started("adam")),
        (1.0, step(1, Some(5.0))),
        (2.0, step(2, None)),
        (2.5, evaluated(2, 4.5)),
        (3.5, step(3, Some(4.0))),
        (4.5, step(4, Some(3.5))),
        (5.0, evaluated(4, 3.75)),
        (5.5, finished(0, None)),
    ]
}

fn page_of(runs: &[PathBuf]) -> String {
    let out = tempfile::tempdir().unwrap();
    write(runs, &out.path().join("report.html")).unwrap();
    fs::read_to_string(out.path().join("report.html")).unwrap()
}

#[test]
fn a_record_tells_losses_and_what_they_cost() {
    let history = history(record(&four_steps()).as_bytes());
    assert_eq!(series::points(&history.train, Axis::Steps), [(1.0, 5.0), (3.0, 4.0), (4.0, 3.5)], "step 2 has no loss");
    let validation = |axis| series::points(&history.validation, axis);
    assert_eq!(validation(Axis::Steps), [(2.0, 4.5), (4.0, 3.75)]);
    assert_eq!(validation(Axis::Tokens), [(202.0, 4.5), (404.0, 3.75)]);
    assert_eq!(validation(Axis::GradientEquivalents), [(4.0, 4.5), (8.0, 3.75)]);
    assert_eq!(validation(Axis::Seconds), [(2.5, 4.5), (5.0, 3.75)]);
    assert_eq!((history.cost().step_seconds, history.seconds), (2.0, 5.5));
    assert_eq!(history.finished.unwrap().reason, "max_steps");
}

#[test]
fn what_a_resumed_run_did_again_counts_once() {
    let mut events = four_steps();
    events.truncate(6); // killed after step 4, with a checkpoint of step 2
    let skipped = |step| Event::Skipped { step, reason: "x".into(), exit_code: 79, first_sequence: 0, sequences: 1 };
    events.insert(2, (1.5, skipped(1)));
    events.push((4.7, skipped(4)));
    events.extend([(0.1, started("adam")), (0.2, resumed(2)), (1.0, step(3, Some(4.25))), (2.0, step(4, Some(3.0)))]);
    let history = history(record(&events).as_bytes());
    assert_eq!(series::points(&history.train, Axis::Steps), [(1.0, 5.0), (3.0, 4.25), (4.0, 3.0)]);
    // The checkpoint's part of the run took 2.5 s; what came after it is lost.
    assert_eq!(series::points(&history.train, Axis::Seconds), [(1.0, 5.0), (3.5, 4.25), (4.5, 3.0)]);
    assert_eq!(series::points(&history.validation, Axis::Steps), [(2.0, 4.5)]);
    assert_eq!((history.resumes, history.skipped, history.finished), (1, vec![1], None));
}

#[test]
fn a_finished_run_that_goes_on_is_not_finished_and_one_without_a_checkpoint_begins_again() {
    let mut events = four_steps();
    events.extend([(0.0, started("adam")), (0.1, resumed(4)), (1.0, step(5, Some(3.0)))]);
    let longer = history(record(&events).as_bytes());
    assert_eq!((longer.train.len(), longer.validation.len(), &longer.finished), (5, 2, &None));
    events.extend([(0.0, started("sgd")), (0.1, resumed(0)), (1.0, step(1, Some(6.0)))]);
    let again = history(record(&events).as_bytes());
    assert_eq!(series::points(&again.train, Axis::Seconds), [(1.0, 6.0)]);
    assert_eq!((again.started.unwrap().plugin.as_str(), again.validation.len()), ("sgd", 0));
}

#[test]
fn torn_and_strange_lines_are_passed_over() {
    let text = record(&four_steps());
    let torn = &text.as_bytes()[..text.len() - 20];
    let history = history(torn);
    assert_eq!((history.train.len(), history.unreadable, history.finished), (4, 0, None));
    // A later process ends the torn line and goes on.
    let mut more = [torn, b"\n\xff\n{\"elapsed\":1,\"event\":\"unheard_of\"}\n"].concat();
    more.extend(record(&[(0.0, started("adam")), (0.1, resumed(4)), (1.0, step(5, Some(3.0)))]).into_bytes());
    let history = self::history(&more);
    assert_eq!((history.train.len(), history.unreadable), (5, 3));
}

#[test]
fn what_is_no_record_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("report.html");
    let missing = write(&[parent.path().join("none")], &out).unwrap_err();
    assert_eq!(missing.exit, Exit::Missing);
    let other = run(parent.path(), "other", b"hello\nworld\n");
    let fault = write(&[other], &out).unwrap_err();
    assert_eq!(fault.exit, Exit::Data);
    let text = "not the record of a run: found 2 lines, none of which is an event";
    assert!(fault.to_string().contains(text), "{fault}");
    assert!(!out.exists());
}

#[test]
fn an_empty_run_has_a_page_without_plots() {
    let parent = tempfile::tempdir().unwrap();
    let page = page_of(&[run(parent.path(), "empty", b"")]);
    assert_eq!(page.matches("None is recorded.").count(), 2);
    assert!(page.contains("none recorded: it runs, or was killed") && !page.contains("polyline"), "{page}");
}

#[test]
fn the_page_shows_every_run_and_fetches_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let first = run(parent.path(), "first", record(&four_steps()).as_bytes());
    let events = [(0.0, started("sgd")), (1.0, step(1, Some(5.0))), (2.0, finished(79, Some("loss is `NaN` <here>")))];
    let second = run(parent.path(), "second", record(&events).as_bytes());
    let page = page_of(&[first.clone(), second.clone()]);
    for words in [
        "<th scope=\"row\">",
        "<bdi>first</bdi>",
        "<td>adam</td>",
        "<td>tiny, 1.014M parameters</td>",
        "<td class=\"number\">3.7500</td>",
        "<td class=\"number\">202</td>",
        "<td>max_steps</td>",
        "<bdi>second</bdi>",
        "<td>error (exit code 79)</td>",
        "error: loss is `NaN` &lt;here&gt;",
        "validation loss (nats a token)",
        "wall time (s)",
        "gradient equivalents",
        "class=\"stroke strong run-0\"",
        "class=\"stroke strong run-1\"",
        "class=\"fill strong run-0\"",
    ] {
        assert!(page.contains(words), "no `{words}` in:\n{page}");
    }
    let foreign = ["<script", "src=", "href=", "url(", "@import", "https:"];
    foreign.iter().for_each(|word| assert!(!page.contains(word), "`{word}` in the page"));
    assert_eq!(page.matches("http:").count(), page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count());
    assert_eq!(page, page_of(&[first, second]), "the same records give the same page");
}

#[test]
fn hostile_names_are_text() {
    let parent = tempfile::tempdir().unwrap();
    let name = "<img src=x onerror=alert(1)>&\"'\n\u{202e}";
    let mut events = four_steps();
    events[0].1 = started("</td><script>1</script>");
    let hostile = run(parent.path(), name, record(&events).as_bytes());
    let page = page_of(&[hostile.clone(), hostile]);
    assert!(!page.contains("<img") && !page.contains("<script") && !page.contains("=x onerror=alert(1)>"));
    assert!(page.contains("<bdi>") && page.contains("&lt;img src=x onerror=alert(1)&gt;&amp;&quot;&#39;\\n"), "{page}");
}

#[test]
fn runs_of_one_name_are_told_apart() {
    let parent = tempfile::tempdir().unwrap();
    let text = record(&four_steps());
    let runs = ["a/run", "b/run", "c"].map(|name| run(parent.path(), name, text.as_bytes()));
    let page = page_of(&runs);
    for run in &runs[..2] {
        assert!(page.contains(&format!("<bdi>{}</bdi>", run.display())), "{}", run.display());
    }
    assert!(page.contains("<bdi>c</bdi>"));
}

#[test]
fn averages_weigh_only_what_is_there() {
    let points = [(1.0, 4.0), (2.0, 2.0), (5.0, 8.0)];
    assert_eq!(averaged(&points, 1.0), points);
    let by_hand = [4.0, (0.5 * 4.0 + 2.0) / 1.5, (0.25 * 4.0 + 0.5 * 2.0 + 8.0) / 1.75];
    for ((x, y), ((expected_x, _), expected)) in averaged(&points, 2.0).into_iter().zip(points.iter().zip(by_hand)) {
        assert!(x == *expected_x && (y - expected).abs() < 1e-12, "{x} {y} {expected}");
    }
}

#[test]
fn thinned_curves_keep_their_ends_and_extremes() {
    let mut points: Vec<(f64, f64)> = (0..50_000).map(|i| (f64::from(i), (f64::from(i) * 0.01).sin())).collect();
    points[12_345].1 = 9.0;
    points[40_001].1 = -9.0;
    let few = thinned(points.clone());
    assert!(few.len() <= 1200 && few.len() > 600, "{}", few.len());
    for kept in [points[0], points[12_345], points[40_001], points[49_999]] {
        assert!(few.contains(&kept), "{kept:?}");
    }
    assert!(few.is_sorted_by(|a, b| a.0 < b.0));
    assert_eq!(thinned(points[..1200].to_vec()), points[..1200]);
}

fn chart(curves: Vec<Curve>) -> Chart {
    Chart {
        size: Size::Half,
        x: "steps".into(),
        left: 0.0,
        x_words: rounded,
        y: "a < b".into(),
        y_words: rounded,
        top: 1.5,
        curves,
    }
}

#[test]
fn a_chart_leaves_out_what_is_not_finite() {
    let drawn = |points: &[(f64, f64)]| {
        chart(vec![Curve { index: 0, stroke: Stroke::Strong, points: points.to_vec() }]).svg("losses").unwrap()
    };
    let (infinite, nan) = (f64::INFINITY, f64::NAN);
    let all = [(0.0, infinite), (0.0, -infinite), (0.0, 1.0), (0.5, nan), (1.0, 1.2), (infinite, 1.1), (nan, 1.0)];
    assert_eq!(drawn(&all), drawn(&[(0.0, 1.0), (1.0, 1.2)]));
    assert!(drawn(&[(0.0, infinite)]).ends_with("</svg>\n"));
}

#[test]
fn a_chart_is_drawn_in_the_pages_colors() {
    let curve = |index, stroke| Curve { index, stroke, points: vec![(0.0, 1.0), (1.0, 2.0)] };
    let chart = chart(vec![curve(0, Stroke::Pale), curve(0, Stroke::Strong), curve(300, Stroke::Strong)]);
    let svg = chart.svg("losses & more").unwrap();
    assert!(svg.starts_with("<svg class=\"half\" role=\"img\" aria-label=\"losses &amp; more\" viewBox="), "{svg}");
    assert!(!svg.contains("=\"#"), "a stand-in is left: {svg}");
    for class in ["stroke pale run-0", "stroke strong run-0", "stroke strong run-300"] {
        assert_eq!(svg.matches(&format!("class=\"{class}\"")).count(), 1, "{class}");
    }
    assert!(svg.contains("a &lt; b") && svg.contains("fill=\"currentColor\""));
}

#[test]
fn numbers_are_short() {
    let table = [
        (0.0, "0"),
        (1.5, "1.5"),
        (-2.0, "-2"),
        (12.345, "12.35"),
        (1500.0, "1500"),
        (10_000.0, "10k"),
        (18_623.0, "18.62k"),
        (3_276_800.0, "3.277M"),
        (2e9, "2G"),
        (5e15, "5000T"),
        (1e38, "1.0e38"),
        (0.001, "1.0e-3"),
    ];
    for (value, expected) in table {
        assert_eq!(rounded(value), expected, "{value}");
    }
}

fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![-10.0..10.0, any::<f64>().prop_filter("JSON holds it", |x| x.is_finite()), Just(1.0), Just(1.0 + 1e-15)]
}

fn any_event() -> impl Strategy<Value = Event> {
    let number = prop_oneof![0..20u64, any::<u64>()];
    let any_step = (number.clone(), proptest::option::of(any_number()), any_number(), number.clone()).prop_map(
        |(at, loss, cost, tokens)| {
            let Event::Step(step) = step(0, loss) else { unreachable!("`step` makes steps") };
            Event::Step(Step { step: at, tokens, gradient_equivalents: cost, seconds: cost, ..step })
        },
    );
    prop_oneof![
        8 => any_step,
        4 => (number.clone(), any_number()).prop_map(|(step, loss)| evaluated(step, loss)),
        1 => number.prop_map(resumed),
        1 => Just(started("p")),
        1 => Just(finished(0, None)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_record_has_a_page(events in proptest::collection::vec((any_number(), any_event()), 0..30)) {
        let mut history = History::default();
        events.into_iter().for_each(|(elapsed, event)| history.hear(elapsed, event));
        prop_assert!(history.train.is_sorted_by(|a, b| a.cost.step < b.cost.step));
        prop_assert!(history.validation.is_sorted_by(|a, b| a.cost.step < b.cost.step));
        prop_assert!(page::render(&[history]).unwrap().ends_with("</html>\n"));
    }
}
