//! Sizes as people read them.

use std::fmt;

/// A number of bytes, shown in MB or GB (powers of ten).
#[derive(Clone, Copy, Debug)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = self.0 as f64 / 1e6;
        if megabytes < 999.95 { write!(f, "{megabytes:.1} MB") } else { write!(f, "{:.2} GB", megabytes / 1e3) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded() {
        for (bytes, shown) in
            [(526_574_961, "526.6 MB"), (999_960_000, "1.00 GB"), (2_524_000_000, "2.52 GB"), (0, "0.0 MB")]
        {
            assert_eq!(Size(bytes).to_string(), shown);
        }
    }
}
