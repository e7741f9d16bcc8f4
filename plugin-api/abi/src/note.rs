//! The ELF note that every plugin carries, so that a host can refuse a file before any of its code runs.

/// Section that holds the note.
pub const SECTION: &str = ".note.gauntlet";
/// Owner name of the note, NUL included.
pub const OWNER: [u8; 12] = *b"Gauntlet\0\0\0\0";
/// Length of the owner name that counts, NUL included.
pub const OWNER_LEN: u32 = 9;
/// Type of the note.
pub const TYPE: u32 = 1;
/// First bytes of the descriptor.
pub const MAGIC: [u8; 8] = *b"GAUNTLET";

/// The descriptor, little-endian.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// Version of the interface.
    pub abi_major: u32,
    /// Version of the interface.
    pub abi_minor: u32,
    /// Version of the interface.
    pub abi_patch: u32,
    /// 1 when the plugin was built with `panic = "unwind"`.
    pub panic_unwind: u32,
    /// Compiler version, NUL padded.
    pub rustc: [u8; 64],
}

/// The whole note as it lies in the section.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug)]
pub struct Note {
    /// Length of the owner name with its NUL.
    pub owner_len: u32,
    /// Length of the descriptor.
    pub descriptor_len: u32,
    /// [`TYPE`].
    pub kind: u32,
    /// [`OWNER`], padded to four bytes.
    pub owner: [u8; 12],
    /// The descriptor.
    pub descriptor: Descriptor,
}

impl Note {
    /// The note of a plugin built against this crate.
    pub const fn new(panic_unwind: bool, rustc: &str) -> Self {
        let (abi_major, abi_minor, abi_patch) = crate::VERSION_NUMBERS;
        let (source, mut text, mut i) = (rustc.as_bytes(), [0; 64], 0);
        while i < source.len() && i < text.len() - 1 {
            text[i] = source[i];
            i += 1;
        }
        Self {
            owner_len: OWNER_LEN,
            descriptor_len: size_of::<Descriptor>() as u32,
            kind: TYPE,
            owner: OWNER,
            descriptor: Descriptor {
                magic: MAGIC,
                abi_major,
                abi_minor,
                abi_patch,
                panic_unwind: panic_unwind as u32,
                rustc: text,
            },
        }
    }
}
