//! A folder of the cache that is made from pinned wheels, and is there whole or not at all.
//!
//! It is made under a temporary name beside its place, synced and renamed, under the cache's lock. What an interrupted
//! run leaves is swept by the next; a wheel that it finished is used again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache::{self, Cache};
use crate::size::Size;
use crate::unpack::{self, Place, Progress};
use crate::wheel::{INCOMING, Wheel};

/// What a folder of the cache is made of.
pub struct Bundle {
    /// How messages name it.
    pub title: &'static str,
    /// Its folder, relative to the cache.
    pub folder: &'static str,
    /// Its wheels.
    pub wheels: &'static [Wheel],
    /// How many bytes of them are unpacked.
    pub unpacked: u64,
    /// Which of their members it takes, and where they go.
    pub place: Place,
    /// Files that it has besides: relative path and content. They are written last.
    pub written: &'static [(&'static str, &'static str)],
    /// Members whose size tells whether the folder is whole.
    pub sizes: &'static [(&'static str, u64)],
}

impl Bundle {
    /// Where it lies, once made.
    pub fn path(&self, cache: &Cache) -> PathBuf {
        cache.path(self.folder)
    }

    /// Whether it lies in the cache, whole.
    pub fn is_made(&self, cache: &Cache) -> bool {
        let folder = self.path(cache);
        let size = |name: &str| fs::metadata(folder.join(name)).map(|metadata| metadata.len()).ok();
        self.written.iter().all(|(name, text)| fs::read_to_string(folder.join(name)).is_ok_and(|found| found == *text))
            && self.sizes.iter().all(|(name, bytes)| size(name) == Some(*bytes))
    }

    /// Says what making it will download and how much disk it takes.
    pub fn announce(&self, cache: &Cache) {
        eprintln!(
            "{}: {} to download, {} on disk ({} while unpacking), in `{}`",
            self.title,
            Size(self.download_bytes()),
            Size(self.unpacked),
            Size(self.peak_bytes()),
            self.path(cache).display()
        );
    }

    /// Makes it, unless it is there.
    pub fn ensure(&self, cache: &Cache) -> Result<()> {
        if self.is_made(cache) {
            return Ok(());
        }
        let _lock = cache.lock()?;
        // Another set-up may have made it while this one waited.
        if self.is_made(cache) { Ok(()) } else { self.make(cache) }
    }

    fn make(&self, cache: &Cache) -> Result<()> {
        let wheels_folder = cache.path("wheels");
        cache::create_folder(&wheels_folder)?;
        cache::sweep(&wheels_folder, INCOMING)?;
        self.sweep_partial(cache)?;
        cache.require_space(self.peak_bytes().saturating_sub(self.present_bytes(&wheels_folder)))?;
        let wheels = self.wheels.iter().map(|wheel| wheel.fetch(&wheels_folder)).collect::<Result<Vec<_>>>()?;
        self.unpack(&wheels, cache)?;
        for wheel in &wheels {
            fs::remove_file(wheel).map_err(|error| cache::writing(wheel, &error))?;
        }
        eprintln!("{} is ready", self.title);
        Ok(())
    }

    fn unpack(&self, wheels: &[PathBuf], cache: &Cache) -> Result<()> {
        let (place, partial) = (self.path(cache), self.partial(cache, &std::process::id().to_string()));
        let made = self.fill(wheels, &partial).and_then(|()| {
            cache::remove_folder(&place)?;
            fs::rename(&partial, &place).map_err(|error| cache::writing(&place, &error))
        });
        if made.is_err() {
            cache::remove_folder(&partial)?;
        }
        made
    }

    /// Unpacks and writes everything below `partial`, and brings it to the disk.
    fn fill(&self, wheels: &[PathBuf], partial: &Path) -> Result<()> {
        cache::create_folder(partial)?;
        let mut progress = Progress::new(self.unpacked);
        for wheel in wheels {
            unpack::unpack(wheel, partial, self.place, &mut progress)?;
        }
        for (name, text) in self.written {
            unpack::write_file(&partial.join(name), text)?;
        }
        let folder = File::open(partial).with_context(|| format!("cannot read `{}`", partial.display()))?;
        rustix::fs::syncfs(folder).map_err(|error| cache::writing(partial, &error.into()))
    }

    /// Removes what interrupted runs left beside the folder.
    fn sweep_partial(&self, cache: &Cache) -> Result<()> {
        let prefix = self.partial(cache, "");
        let (Some(parent), Some(name)) = (prefix.parent(), prefix.file_name()) else { return Ok(()) };
        cache::create_folder(parent)?;
        cache::sweep(parent, &name.to_string_lossy())
    }

    fn partial(&self, cache: &Cache, suffix: &str) -> PathBuf {
        cache.path(&format!("{}.partial-{suffix}", self.folder))
    }

    fn download_bytes(&self) -> u64 {
        self.wheels.iter().map(|wheel| wheel.bytes).sum()
    }

    /// The most that lies on the disk at once: all wheels, and either pip's copy of the largest or what is unpacked.
    fn peak_bytes(&self) -> u64 {
        let largest = self.wheels.iter().map(|wheel| wheel.bytes).max().unwrap_or(0);
        self.download_bytes() + largest.max(self.unpacked)
    }

    /// What of the wheels lies on the disk already.
    fn present_bytes(&self, wheels_folder: &Path) -> u64 {
        let size = |wheel: &Wheel| fs::metadata(wheels_folder.join(wheel.file)).map_or(0, |metadata| metadata.len());
        self.wheels.iter().map(size).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;
    use crate::wheel;

    /// A bundle of one wheel, which lies in the cache as if it were downloaded.
    fn bundle(cache: &Cache) -> Bundle {
        let path = cache.path("wheels/book-1.0-py3-none-any.whl");
        fs::create_dir_all(cache.path("wheels")).unwrap();
        let mut writer = ZipWriter::new(File::create(&path).unwrap());
        writer.start_file("book/page", SimpleFileOptions::default()).unwrap();
        writer.write_all(b"text").unwrap();
        writer.finish().unwrap();
        let bytes = fs::metadata(&path).unwrap().len();
        let sha256 = wheel::sha256(&path).unwrap().leak();
        let wheels = vec![Wheel { file: "book-1.0-py3-none-any.whl", bytes, sha256 }].leak();
        Bundle {
            title: "book",
            folder: "books/book-1.0",
            wheels,
            unpacked: 4,
            place: |member| member.strip_prefix("book/").map(str::to_owned),
            written: &[("SOURCE", "book 1.0\n")],
            sizes: &[("page", 4)],
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn it_is_made_whole_and_leaves_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let cache = Cache::at(home.path());
        let book = bundle(&cache);
        assert!(!book.is_made(&cache));
        book.ensure(&cache).unwrap();
        assert!(book.is_made(&cache));
        assert_eq!(names(&book.path(&cache)), ["SOURCE", "page"]);
        assert_eq!(names(&cache.path("books")), ["book-1.0"]);
        assert!(names(&cache.path("wheels")).is_empty());
        book.ensure(&cache).unwrap();
    }

    #[test]
    fn leftovers_are_swept_and_a_damaged_folder_is_made_anew() {
        let home = tempfile::tempdir().unwrap();
        let cache = Cache::at(home.path());
        let book = bundle(&cache);
        for leftover in ["books/book-1.0.partial-1", "books/book-1.0", "wheels/incoming-1"] {
            fs::create_dir_all(cache.path(leftover)).unwrap();
            fs::write(cache.path(leftover).join("page"), "te").unwrap();
        }
        fs::write(cache.path("books/book-1.0/SOURCE"), "book 1.0\n").unwrap();
        assert!(!book.is_made(&cache), "a page is cut off");
        book.ensure(&cache).unwrap();
        assert_eq!(fs::read_to_string(book.path(&cache).join("page")).unwrap(), "text");
        assert_eq!(names(&cache.path("books")), ["book-1.0"]);
        assert!(names(&cache.path("wheels")).is_empty());
    }

    #[test]
    fn a_failure_leaves_no_folder() {
        let home = tempfile::tempdir().unwrap();
        let cache = Cache::at(home.path());
        let book = Bundle { written: &[("page/SOURCE", "")], ..bundle(&cache) };
        assert!(book.ensure(&cache).is_err(), "a file is in the way of a folder");
        assert!(names(&cache.path("books")).is_empty());
        assert_eq!(names(&cache.path("wheels")), ["book-1.0-py3-none-any.whl"]);
    }
}
