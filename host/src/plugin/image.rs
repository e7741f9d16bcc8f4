//! A plugin's bytes, checked once and held where nobody can change them, ready for `dlopen`.
//!
//! The file is read once; ELF bounds, note and hash are judged on those bytes, and the same bytes go into a sealed memory
//! file that the system's loader opens as `/proc/self/fd/N`. So no change to the file can slip in between check and use,
//! and replacing the file while a run goes on changes nothing.
//!
//! Where the system forbids memory files (`vm.memfd_noexec = 2`), the bytes go into a file named by their hash in a new
//! folder of mode 0700 in the temporary directory; it is opened for reading and both are removed at once, so that again
//! only the descriptor is left.
//!
//! The descriptor stays open for ever: glibc knows a loaded library by its name, so reusing the number N would give the
//! old library for a new file. [`Image::verify_mapping`] makes sure afterwards.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::fd::IntoRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::elf::{self, Note};
use super::file::{Checked, open_checked};
use crate::error::{Exit, Fault, Result};

/// The largest plugin file, in bytes: 1 GiB.
pub const MAX_LEN: u64 = 1 << 30;

/// A checked plugin that can be opened by `dlopen`. It holds its memory and one descriptor until the process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The file that it was read from, without symbolic links.
    pub path: PathBuf,
    /// SHA-256 of the bytes, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// What the plugin says about how it was built.
    pub note: Note,
    sealed: Sealed,
}

impl Image {
    /// Reads and checks the plugin at `path`, an absolute path: owner and mode, ELF bounds, hash, note.
    ///
    /// `pin` is the hash that the user expects, if any; `host_abi` the version of the plugin ABI that this host speaks.
    ///
    /// # Errors
    /// [`Exit::Missing`], [`Exit::Refused`] (owner, mode, path, hash), [`Exit::Plugin`] (not a plugin, truncated, ABI,
    /// panic strategy), [`Exit::Write`] (no room for the copy).
    pub fn read(path: &Path, pin: Option<&str>, host_abi: (u32, u32, u32)) -> Result<Self> {
        let Checked { file, path, len } = open_checked(path)?;
        let bytes = read_whole(&path, file, len)?;
        let note = elf::read(&path, &bytes)?;
        let sha256 = hex_sha256(&bytes);
        check_pin(&path, &sha256, pin)?;
        note.check(&path, host_abi)?;
        let sealed = Sealed::new(&sha256, &bytes).map_err(|error| {
            Fault::new(Exit::Write, format!("cannot hold a copy of `{}` in memory: {error}", path.display()))
                .hint("make room in memory or in the temporary directory")
        })?;
        Ok(Self { path, sha256, note, sealed })
    }

    /// The path to give to `dlopen`.
    pub fn dlopen_path(&self) -> &Path {
        &self.sealed.path
    }

    /// Checks, before anything is called, that the library which holds `symbol_address` was loaded from these bytes.
    ///
    /// # Errors
    /// [`Exit::Refused`] when the address lies in a mapping of another file or of none.
    pub fn verify_mapping(&self, symbol_address: usize) -> Result<()> {
        let maps_path = Path::new("/proc/self/maps");
        let maps = std::fs::read_to_string(maps_path).map_err(|error| Fault::reading(maps_path, &error))?;
        let found = inode_at(&maps, symbol_address);
        if found == Some(self.sealed.inode) {
            return Ok(());
        }
        let what = format!("`{}`: the code that was loaded is not the file that was checked", self.path.display());
        Err(Fault::new(Exit::Refused, what)
            .found(found.map_or("no mapping".to_owned(), |inode| format!("inode {inode}")))
            .expected(format_args!("inode {}", self.sealed.inode))
            .hint("start again; a library of the same name was already loaded"))
    }
}

fn read_whole(path: &Path, file: File, len: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if len <= MAX_LEN {
        file.take(MAX_LEN + 1).read_to_end(&mut bytes).map_err(|error| Fault::reading(path, &error))?;
    }
    let len = len.max(bytes.len() as u64);
    if len <= MAX_LEN {
        return Ok(bytes);
    }
    Err(Fault::new(Exit::Plugin, format!("`{}`: too large for a plugin", path.display()))
        .found(format_args!("{len} bytes"))
        .expected(format_args!("at most {MAX_LEN} bytes"))
        .hint("strip the library of its debug information"))
}

/// SHA-256 as 64 lower-case hexadecimal digits.
pub fn hex_sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check_pin(path: &Path, sha256: &str, pin: Option<&str>) -> Result<()> {
    match pin {
        Some(pin) if !pin.eq_ignore_ascii_case(sha256) => {
            Err(Fault::new(Exit::Refused, format!("`{}`: the file is not the pinned one", path.display()))
                .found(format_args!("sha256 {sha256}"))
                .expected(format_args!("sha256 {pin}"))
                .hint("if the change is meant, set `optimizer.sha256` to the hash that was found"))
        }
        _ => Ok(()),
    }
}

/// Bytes behind a descriptor that is never closed and that nobody can write to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sealed {
    path: PathBuf,
    inode: u64,
}

impl Sealed {
    fn new(name: &str, bytes: &[u8]) -> std::io::Result<Self> {
        let file = in_memory(bytes).or_else(|_| in_private_folder(name, bytes))?;
        let inode = file.metadata()?.ino();
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.into_raw_fd()));
        Ok(Self { path, inode })
    }
}

fn in_memory(bytes: &[u8]) -> std::io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let create = |flags| memfd_create("gauntlet-plugin", flags);
    // Kernels before 6.3 do not know the flag EXEC, later ones ask for it.
    let fd = match create(flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => create(flags)?,
        created => created?,
    };
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

fn in_private_folder(name: &str, bytes: &[u8]) -> std::io::Result<File> {
    let folder = tempfile::Builder::new().prefix("gauntlet-").permissions(Permissions::from_mode(0o700)).tempdir()?;
    let path = folder.path().join(name);
    OpenOptions::new().write(true).create_new(true).mode(0o500).open(&path)?.write_all(bytes)?;
    let file = File::open(&path)?;
    folder.close()?;
    Ok(file)
}

/// The inode of the file whose mapping holds `address`, from the text of `/proc/self/maps`.
fn inode_at(maps: &str, address: usize) -> Option<u64> {
    maps.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        let inode = fields.nth(3)?.parse().ok()?;
        (range.contains(&address) && inode != 0).then_some(inode)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::elf::fixture::{Elf, descriptor, plugin, real_library};
    use super::*;

    const HOST: (u32, u32, u32) = (1, 0, 0);

    fn file(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("libx.so");
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        (folder, path)
    }

    #[test]
    fn the_hash_is_sha256() {
        assert_eq!(hex_sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn an_image_holds_the_bytes_that_were_checked() {
        let bytes = plugin();
        let (_folder, path) = file(&bytes);
        let link = path.with_file_name("link.so");
        symlink(&path, &link).unwrap();
        let image = Image::read(&link, Some(&hex_sha256(&bytes).to_uppercase()), HOST).unwrap();
        assert_eq!((&image.path, &image.sha256), (&path, &hex_sha256(&bytes)));
        assert_eq!(image.note.abi, (1, 2, 3));
        std::fs::write(&path, b"something else").unwrap();
        assert_eq!(std::fs::read(image.dlopen_path()).unwrap(), bytes);
        let write = OpenOptions::new().write(true).open(image.dlopen_path()).and_then(|mut file| file.write_all(b"x"));
        assert_eq!(write.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn every_image_has_a_path_of_its_own() {
        let (_folder, path) = file(&plugin());
        let images = [(); 3].map(|()| Image::read(&path, None, HOST).unwrap().dlopen_path().to_path_buf());
        assert!(images[0] != images[1] && images[1] != images[2] && images[0] != images[2], "{images:?}");
    }

    #[test]
    fn refusals() {
        let (pin, found) = ("0".repeat(64), hex_sha256(&plugin()));
        let pinned = format!(
            "the file is not the pinned one: found sha256 {found}, expected sha256 {pin}; hint: if the change is meant, set \
             `optimizer.sha256` to the hash that was found"
        );
        let other_abi = Elf { note: Some(descriptor((2, 0, 0), 1, "")), ..Elf::default() }.build();
        let table: [(Vec<u8>, Option<&str>, Exit, &str); 4] = [
            (plugin(), Some(&pin), Exit::Refused, &pinned),
            (
                other_abi.clone(),
                None,
                Exit::Plugin,
                "the major versions of the plugin ABI differ: found plugin ABI 2.0.0",
            ),
            (other_abi, Some(&pin), Exit::Refused, "the file is not the pinned one"),
            (Vec::new(), Some(&pin), Exit::Plugin, "not an ELF file (0 bytes)"),
        ];
        for (bytes, pin, exit, expected) in table {
            let (_folder, path) = file(&bytes);
            let fault = Image::read(&path, pin, HOST).unwrap_err();
            assert_eq!(fault.exit, exit);
            assert!(fault.to_string().starts_with(&format!("`{}`: {expected}", path.display())), "{fault}");
        }
    }

    #[test]
    fn a_huge_file_is_refused_unread() {
        let (_folder, path) = file(b"");
        OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
        let fault = Image::read(&path, None, HOST).unwrap_err();
        let expected = "too large for a plugin: found 1099511627776 bytes, expected at most 1073741824 bytes";
        assert!(fault.exit == Exit::Plugin && fault.to_string().contains(expected), "{fault}");
    }

    /// Loads the library by its descriptor; the address of one of its symbols.
    fn load(sealed: &Sealed) -> usize {
        // SAFETY: a system library that this process has loaded before; its constructors do nothing of note.
        let library = unsafe { libloading::Library::new(&sealed.path) }.unwrap();
        let symbol = [&b"_Unwind_Resume\0"[..], &b"cos\0"[..]].into_iter().find_map(|name| {
            // SAFETY: the symbol is only looked at, not called.
            unsafe { library.get::<*const ()>(name) }.ok().map(|symbol| *symbol as usize)
        });
        std::mem::forget(library);
        symbol.unwrap()
    }

    #[test]
    fn a_loaded_library_is_known_by_its_mapping() {
        let bytes = std::fs::read(real_library()).unwrap();
        let image = |sealed: &Sealed| Image {
            path: "/p/libx.so".into(),
            sha256: String::new(),
            note: elf::read(Path::new("x"), &plugin()).unwrap(),
            sealed: sealed.clone(),
        };
        let private = in_private_folder("name", &bytes).unwrap();
        assert_eq!(private.metadata().unwrap().nlink(), 0, "the file is gone from its folder");
        let private = Sealed {
            inode: private.metadata().unwrap().ino(),
            path: format!("/proc/self/fd/{}", private.into_raw_fd()).into(),
        };
        let kinds = [Sealed::new("x", &bytes).unwrap(), Sealed::new("x", &bytes).unwrap(), private];
        let addresses = kinds.each_ref().map(load);
        for (i, sealed) in kinds.iter().enumerate() {
            for (j, &address) in addresses.iter().enumerate() {
                assert_eq!(image(sealed).verify_mapping(address).is_ok(), i == j, "{i} {j}");
            }
        }
        let fault = image(&kinds[0]).verify_mapping(8).unwrap_err();
        let expected = "`/p/libx.so`: the code that was loaded is not the file that was checked: found no mapping, expected inode ";
        assert!(fault.exit == Exit::Refused && fault.to_string().starts_with(expected), "{fault}");
    }

    #[test]
    fn maps_are_read_by_address() {
        let maps = "7f00-7f10 r--p 00000000 00:01 42 /memfd:gauntlet-plugin (deleted)\n\
                    7f10-7f20 rw-p 00000000 00:00 0 \nnonsense\n7f20-7f30 r-xp 00001000 00:01 43 /a b\n";
        let at = [0x7eff, 0x7f00, 0x7f0f, 0x7f10, 0x7f25, 0x7f30].map(|address| inode_at(maps, address));
        assert_eq!(at, [None, Some(42), Some(42), None, Some(43), None]);
    }
}
