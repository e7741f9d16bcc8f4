//! What a plugin file says about itself before any of its code runs: ELF bounds and the note that every plugin carries.
//!
//! Constructors of a shared library run inside `dlopen`, and a file that ends inside a segment kills the process with
//! SIGBUS, so both have to be judged on the bytes first.
//!
//! The note lies in the section `.note.gauntlet` and in a `PT_NOTE` segment (which survives `strip`). Its ELF name is
//! `Gauntlet`, its type 1, its descriptor little-endian and at least [`DESCRIPTOR_LEN`] bytes long:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | the bytes `GAUNTLET` |
//! | 8 | 12 | plugin ABI version: major, minor, patch, each u32 |
//! | 20 | 4 | panic strategy: u32, 1 = unwind |
//! | 24 | 64 | version text of the compiler, padded with NUL |

use std::path::Path;

use gauntlet_plugin_abi::note;
use object::LittleEndian;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, NoteIterator, ProgramHeader, SectionHeader};

use crate::error::{Exit, Fault, Result};

/// The note's ELF name, without its closing NUL.
pub const NOTE_NAME: &[u8] = note::OWNER.split_at(note::OWNER_LEN as usize - 1).0;
/// The least number of bytes in the note's descriptor; what follows them is ignored.
pub const DESCRIPTOR_LEN: usize = size_of::<note::Descriptor>();

const HINT_MADE: &str = "a plugin is a crate with `crate-type = [\"cdylib\"]` that calls `export_optimizer!`";
const ENDIAN: LittleEndian = LittleEndian;
const HEADER_LEN: u64 = size_of::<Header>() as u64;

type Header = FileHeader64<LittleEndian>;
type Segment = elf::ProgramHeader64<LittleEndian>;
type Section = elf::SectionHeader64<LittleEndian>;

/// What a plugin says about how it was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Version of the plugin ABI: major, minor, patch.
    pub abi: (u32, u32, u32),
    /// Whether a panic of the plugin unwinds (otherwise it would end the process).
    pub panic_unwind: bool,
    /// Version text of the compiler.
    pub rustc: String,
}

impl Note {
    /// Whether a host of this ABI version may load the plugin at `path`: equal major versions, and panics that unwind.
    ///
    /// # Errors
    /// [`Exit::Plugin`], with found, expected and hint.
    pub fn check(&self, path: &Path, host: (u32, u32, u32)) -> Result<()> {
        let (major, minor, patch) = self.abi;
        if major != host.0 {
            return Err(fault(path, "the major versions of the plugin ABI differ")
                .found(format_args!("plugin ABI {major}.{minor}.{patch}"))
                .expected(format_args!("{}.x (host ABI {}.{}.{})", host.0, host.0, host.1, host.2))
                .hint("rebuild the plugin against this host's gauntlet-plugin-api"));
        }
        if !self.panic_unwind {
            return Err(fault(path, "optimizer plugins must be built with panic = \"unwind\"")
                .found("panic = \"abort\"")
                .expected("panic = \"unwind\"")
                .hint("remove `panic = \"abort\"` from the plugin's Cargo profile and build it again"));
        }
        Ok(())
    }

    /// Reads a note's descriptor; `None` when it is too short or has another magic.
    fn parse(descriptor: &[u8]) -> Option<Self> {
        let descriptor = descriptor.get(..DESCRIPTOR_LEN)?.strip_prefix(&note::MAGIC)?;
        let (words, text) = descriptor.split_at_checked(16)?;
        let mut words = words.chunks_exact(4).map(|word| word.iter().rev().fold(0, |sum, &b| sum << 8 | u32::from(b)));
        let mut next = || words.next();
        let abi = (next()?, next()?, next()?);
        let panic_unwind = next()? == 1;
        let text = text.split(|&b| b == 0).next()?;
        Some(Self { abi, panic_unwind, rustc: String::from_utf8_lossy(text).into_owned() })
    }
}

/// Checks that `bytes`, read from `path`, are a whole shared library for this machine, and reads its note.
///
/// Sure of afterwards: 64-bit little-endian x86_64, not an executable, every segment and section within the file.
///
/// # Errors
/// [`Exit::Plugin`]: not ELF, another CPU, not a shared library, truncated, malformed, no note or a damaged one.
pub fn read(path: &Path, bytes: &[u8]) -> Result<Note> {
    check_identity(path, bytes)?;
    let malformed = |error| fault(path, "malformed ELF file").found(error).hint("build the plugin again");
    let header = Header::parse(bytes).map_err(malformed)?;
    check_machine(path, header.e_machine(ENDIAN).0, "64-bit little-endian")?;
    check_type(path, header.e_type(ENDIAN))?;
    check_end(path, bytes, end_of_tables(header, bytes))?;
    let segments = header.program_headers(ENDIAN, bytes).map_err(malformed)?;
    let sections = header.section_headers(ENDIAN, bytes).map_err(malformed)?;
    check_end(path, bytes, end_of_contents(segments, sections))?;
    check_segments(path, bytes, segments)?;
    match find_note(header, bytes, segments) {
        Some(descriptor) => Note::parse(descriptor).ok_or_else(|| {
            fault(path, "damaged plugin note")
                .found(format_args!("{} bytes", descriptor.len()))
                .expected(format_args!("at least {DESCRIPTOR_LEN} bytes that begin with `GAUNTLET`"))
                .hint("build the plugin again")
        }),
        None => Err(fault(path, "not an optimizer plugin")
            .found("no plugin note")
            .expected("the ELF note `Gauntlet`")
            .hint(HINT_MADE)),
    }
}

fn fault(path: &Path, what: &str) -> Fault {
    Fault::new(Exit::Plugin, format!("`{}`: {what}", path.display()))
}

/// Magic, class and byte order, of a file of any length.
fn check_identity(path: &Path, bytes: &[u8]) -> Result<()> {
    if !bytes.starts_with(b"\x7fELF") {
        let first = bytes.iter().take(4).map(|b| format!(" {b:02x}")).collect::<String>();
        return Err(fault(path, &format!("not an ELF file ({} bytes)", bytes.len()))
            .found(if first.is_empty() { "no bytes".to_owned() } else { format!("first bytes{first}") })
            .expected("a shared library")
            .hint(HINT_MADE));
    }
    let (Some([class, order]), Some(&[low, high])) = (bytes.get(4..6), bytes.get(18..20)) else {
        return check_end(path, bytes, HEADER_LEN);
    };
    let little = *order == 1;
    let machine = if little { u16::from_le_bytes([low, high]) } else { u16::from_be_bytes([low, high]) };
    match (class, little) {
        (2, true) => check_end(path, bytes, HEADER_LEN),
        (2, false) => refuse_machine(path, machine, "64-bit big-endian"),
        (_, little) => refuse_machine(path, machine, if little { "32-bit little-endian" } else { "32-bit big-endian" }),
    }
}

fn check_machine(path: &Path, machine: u16, kind: &str) -> Result<()> {
    if machine == elf::EM_X86_64.0 { Ok(()) } else { refuse_machine(path, machine, kind) }
}

fn refuse_machine(path: &Path, machine: u16, kind: &str) -> Result<()> {
    let name = match machine {
        3 => "i386",
        8 => "mips",
        20 => "ppc",
        21 => "ppc64",
        22 => "s390",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv",
        258 => "loongarch",
        _ => "e_machine",
    };
    Err(fault(path, "built for another CPU")
        .found(format_args!("{kind} {name} ({machine})"))
        .expected("64-bit little-endian x86_64 (62)")
        .hint("build the plugin for `x86_64-unknown-linux-gnu`"))
}

fn check_type(path: &Path, kind: elf::FileType) -> Result<()> {
    let found = match kind {
        elf::ET_DYN => return Ok(()),
        elf::ET_EXEC => "an executable".to_owned(),
        elf::ET_REL => "an object file".to_owned(),
        elf::ET_CORE => "a core dump".to_owned(),
        elf::FileType(other) => format!("e_type {other}"),
    };
    Err(fault(path, "not a shared library").found(found).expected("a shared library").hint(HINT_MADE))
}

fn check_end(path: &Path, bytes: &[u8], end: u64) -> Result<()> {
    let len = bytes.len() as u64;
    if end <= len {
        return Ok(());
    }
    Err(fault(path, &format!("truncated: {len} bytes, headers end at {end}"))
        .found(format_args!("{len} bytes"))
        .expected(format_args!("at least {end} bytes"))
        .hint("copy or build the plugin again"))
}

/// Where the program header and section header tables end, whichever is later.
fn end_of_tables(header: &Header, bytes: &[u8]) -> u64 {
    let table = |offset: u64, count: u64, entry: u64| {
        if offset == 0 { 0 } else { offset.saturating_add(count.saturating_mul(entry)) }
    };
    // An extended count lies in section 0; where that is unreadable, the table's first entry is already out of range.
    let segments = header.phnum(ENDIAN, bytes).map_or(1, u64::from);
    let sections = header.shnum(ENDIAN, bytes).map_or(1, u64::from);
    let segments = table(header.e_phoff(ENDIAN), segments, size_of::<Segment>() as u64);
    segments.max(table(header.e_shoff(ENDIAN), sections, size_of::<Section>() as u64))
}

/// Where the last segment or section ends in the file.
fn end_of_contents(segments: &[Segment], sections: &[Section]) -> u64 {
    let segments = segments.iter().map(|segment| segment.file_range(ENDIAN));
    let sections = sections.iter().filter(|section| section.sh_type(ENDIAN) != elf::SHT_NULL);
    let sections = sections.filter_map(|section| section.file_range(ENDIAN));
    segments.chain(sections).map(|(offset, size)| offset.saturating_add(size)).max().unwrap_or(0)
}

/// A shared library has something to load, and neither an interpreter nor the flag of a position-independent executable.
fn check_segments(path: &Path, bytes: &[u8], segments: &[Segment]) -> Result<()> {
    if !segments.iter().any(|segment| segment.p_type(ENDIAN) == elf::PT_LOAD) {
        return Err(fault(path, "malformed ELF file").found("no loadable segment").hint("build the plugin again"));
    }
    let interpreter = segments.iter().any(|segment| segment.p_type(ENDIAN) == elf::PT_INTERP);
    let dynamic = segments.iter().find_map(|segment| segment.dynamic(ENDIAN, bytes).ok().flatten()).unwrap_or(&[]);
    let flagged = dynamic
        .iter()
        .map(|entry| (entry.d_tag.get(ENDIAN), entry.d_val.get(ENDIAN)))
        .take_while(|&(tag, _)| tag != elf::DT_NULL)
        .any(|(tag, value)| tag == elf::DT_FLAGS_1 && value & elf::DF_1_PIE.0 != 0);
    if !interpreter && !flagged {
        return Ok(());
    }
    Err(fault(path, "not a shared library")
        .found("a position-independent executable")
        .expected("a shared library")
        .hint(HINT_MADE))
}

/// The descriptor of the plugin note, from the note segments, else from the section of its name.
fn find_note<'a>(header: &'a Header, bytes: &'a [u8], segments: &'a [Segment]) -> Option<&'a [u8]> {
    let in_segments = segments.iter().filter_map(|segment| segment.notes(ENDIAN, bytes).ok().flatten());
    in_segments.chain(section_notes(header, bytes)).find_map(|mut notes| {
        std::iter::from_fn(|| notes.next().ok().flatten())
            .find(|note| note.name() == NOTE_NAME && note.n_type(ENDIAN).0 == note::TYPE)
            .map(|note| note.desc())
    })
}

fn section_notes<'a>(header: &'a Header, bytes: &'a [u8]) -> Option<NoteIterator<'a, Header>> {
    let sections = header.sections(ENDIAN, bytes).ok()?;
    let (_, section) = sections.section_by_name(ENDIAN, note::SECTION.as_bytes())?;
    NoteIterator::new(ENDIAN, section.sh_addralign(ENDIAN), section.data(ENDIAN, bytes).ok()?).ok()
}

/// Small ELF files built by hand.
#[cfg(test)]
pub(crate) mod fixture {
    use super::*;

    /// What to build; `Default` is a library without a note.
    #[derive(Clone, Default)]
    pub struct Elf {
        /// Descriptor of the plugin note.
        pub note: Option<Vec<u8>>,
        /// Whether a section points to the note instead of a segment.
        pub note_in_section: bool,
        /// Whether there is an interpreter.
        pub interpreter: bool,
        /// Value of `DT_FLAGS_1`.
        pub flags: u64,
    }

    /// A note's descriptor.
    pub fn descriptor(abi: (u32, u32, u32), panic_unwind: u32, rustc: &str) -> Vec<u8> {
        let words = [abi.0, abi.1, abi.2, panic_unwind].map(u32::to_le_bytes).concat();
        let mut bytes = [&note::MAGIC[..], &words, rustc.as_bytes()].concat();
        bytes.resize(DESCRIPTOR_LEN, 0);
        bytes
    }

    /// A library that a host of ABI 1.x accepts.
    pub fn plugin() -> Vec<u8> {
        Elf { note: Some(descriptor((1, 2, 3), 1, "rustc 1.95.0")), ..Elf::default() }.build()
    }

    fn words(values: &[u64]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    impl Elf {
        /// Header, program headers, note, dynamic table, section names, section headers.
        pub fn build(&self) -> Vec<u8> {
            let note = self.note.as_ref().map(|descriptor| {
                let head = [9, descriptor.len() as u32, note::TYPE].map(u32::to_le_bytes).concat();
                [&head[..], b"Gauntlet\0\0\0\0", descriptor].concat()
            });
            let names = b"\0.note.gauntlet\0.shstrtab\0\0\0\0\0\0\0\0\0";
            let dynamic = words(&[0x6fff_fffb, self.flags, 0, 0]);
            let note_len = note.as_ref().map_or(0, Vec::len) as u64;
            let in_segment = note.is_some() && !self.note_in_section;
            let count = 2 + u64::from(in_segment) + u64::from(self.interpreter);
            let note_at = 64 + 56 * count;
            let dynamic_at = note_at + note_len.next_multiple_of(8);
            let names_at = dynamic_at + dynamic.len() as u64;
            let sections_at = names_at + 32;
            let end = sections_at + 3 * 64;
            let segment = |kind: u64, at: u64, len: u64| words(&[kind | 4 << 32, at, at, at, len, len, 8]);
            let mut segments = vec![segment(1, 0, end), segment(2, dynamic_at, dynamic.len() as u64)];
            segments.extend(in_segment.then(|| segment(4, note_at, note_len)));
            segments.extend(self.interpreter.then(|| segment(3, names_at, 1)));
            let note_name = if note.is_some() { 1 } else { 0 };
            let section =
                |name: u64, kind: u64, at: u64, len: u64| words(&[name | kind << 32, 2, at, at, len, 0, 8, 0]);
            let sections =
                [section(0, 0, 0, 0), section(note_name, 7, note_at, note_len), section(16, 3, names_at, 32)];
            let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0".to_vec();
            bytes.extend(words(&[0, 64, sections_at]));
            bytes.extend([0, 0, 0, 0, 64, 0, 56, 0, count as u8, 0, 64, 0, 3, 0, 2, 0]);
            bytes.extend(segments.concat());
            bytes.extend(note.unwrap_or_default());
            bytes.resize(dynamic_at as usize, 0);
            bytes.extend([&dynamic[..], &names[..32], &sections.concat()].concat());
            assert_eq!(bytes.len() as u64, end);
            bytes
        }
    }

    /// A real shared library that this process has loaded.
    pub fn real_library() -> std::path::PathBuf {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let paths = maps.lines().filter_map(|line| line.split_ascii_whitespace().nth(5));
        let small = |path: &&str| path.contains("/libgcc_s") || path.contains("/libm.") || path.contains("/libm-");
        paths.into_iter().find(small).expect("no small library is loaded").into()
    }
}

#[cfg(test)]
mod tests;
