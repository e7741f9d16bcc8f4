//! Numbers and times as a person reads them.

/// A number in at most four digits, with `k`, `M`, `G` or `T` for thousands; a power of ten where these do not do.
pub fn rounded(value: f64) -> String {
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    // Four digits are as short as three and a letter.
    let unit = units.iter().find(|(unit, _)| value.abs() >= if *unit == 1e3 { 1e4 } else { *unit });
    let (scaled, letter) = unit.map_or((value, ""), |(unit, letter)| (value / unit, *letter));
    let digits = match scaled.abs() {
        size if size >= 1e4 => return format!("{value:.1e}"),
        size if size >= 1000.0 => 0,
        size if size >= 100.0 => 1,
        size if size >= 10.0 => 2,
        size if size >= 0.01 || size == 0.0 => 3,
        _ => return format!("{value:.1e}"),
    };
    let mut text = format!("{scaled:.digits$}");
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text + letter
}

/// Seconds as a person reads them.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole / 60 % 60),
    }
}
