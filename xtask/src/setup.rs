//! The set-up that every command begins with: the machine's check, the downloads, the link.

use anyhow::Result;

use crate::bundle::Bundle;
use crate::cache::Cache;
use crate::libtorch::Edition;
use crate::platform;

/// `cargo xtask setup`: libtorch, and how to go on.
pub fn run(edition: Edition) -> Result<()> {
    ensure(edition, &[])?;
    eprintln!(
        "libtorch is set up: `cargo build --release`, `cargo test --release` and `cargo xtask quickstart` work now"
    );
    Ok(())
}

/// Makes libtorch and `others` available, after saying what will be downloaded. Returns the cache that they lie in.
pub fn ensure(edition: Edition, others: &[&Bundle]) -> Result<Cache> {
    let cache = Cache::locate()?;
    let wanted = [&[edition.bundle()], others].concat();
    let missing: Vec<_> = wanted.iter().filter(|bundle| !bundle.is_made(&cache)).collect();
    platform::check(!missing.is_empty())?;
    missing.iter().for_each(|bundle| bundle.announce(&cache));
    wanted.iter().try_for_each(|bundle| bundle.ensure(&cache))?;
    edition.link(&cache)?;
    Ok(cache)
}

/// The edition that this checkout uses already, else the one for CPU.
pub fn present_edition() -> Edition {
    Edition::linked().unwrap_or(Edition::Cpu)
}
