//! OpenSSL and what has its functions (`BoringSSL`, `LibreSSL`), in a library of its own or linked into a program.
//!
//! In: an ELF file. Out: the [`Plan`] for it. Called by `plan`.

use agent_ebpf::role;

use super::elf::{self, Bytes, Elf, Machine, Symbol};
use super::place::{self, Function, Map, Spot};
use super::{Error, Options, Plan, Point, Program};

/// Looked for in every file.
const NAMES: [&str; 13] = [
    "SSL_write",
    "SSL_read",
    "SSL_read_ex",
    "SSL_write_ex",
    "SSL_write_ex2",
    "SSL_free",
    "SSL_clear",
    "SSL_do_handshake",
    "SSL_connect",
    "SSL_accept",
    "SSL_set_fd",
    "SSL_set_rfd",
    "SSL_set_wfd",
];

/// The forms of each operation, with the index of the argument that says where the count is stored (0: none).
const READ: [(&str, u8); 2] = [("SSL_read", 0), ("SSL_read_ex", 3)];
const WRITE: [(&str, u8); 3] = [("SSL_write", 0), ("SSL_write_ex", 3), ("SSL_write_ex2", 4)];

/// What is defined in the file.
struct Symbols(Vec<Option<Symbol>>);

impl Symbols {
    fn get(&self, name: &str) -> Option<(&'static str, Symbol)> {
        let n = NAMES.iter().position(|n| *n == name)?;
        Some((NAMES[n], (*self.0.get(n)?)?))
    }
}

pub(super) fn plan<B: Bytes + ?Sized>(bytes: &B, options: Options) -> Result<Option<Plan>, Error> {
    let Some(elf) = Elf::open(bytes)? else { return Ok(None) };
    if elf.machine != host() {
        return Ok(None);
    }
    let Some(symbols) = elf.symbols(&NAMES, "SSL_write")?.map(Symbols) else { return Ok(None) };
    if symbols.get("SSL_read").is_none() {
        return Ok(None);
    }
    let mut spots = match elf.machine {
        Machine::X86_64 => x86_64(&elf, &symbols, options)?,
        Machine::Aarch64 => aarch64(&symbols, options),
    };
    let placed =
        |operation| spots.iter().any(|s: &Spot| s.program == Program::Call && s.cookie & role::OPERATION == operation);
    if !placed(role::READ) || !placed(role::WRITE) {
        return Err(Error::NoPlace);
    }
    let order = [Program::Free, Program::Mark, Program::Descriptor, Program::Result, Program::Call];
    spots.sort_by_key(|s| order.iter().position(|p| *p == s.program));
    let mut points: Vec<Point> = Vec::new();
    for spot in spots {
        let Some(offset) = elf.offset(spot.address) else { continue };
        if points.iter().any(|p| (p.offset, p.program) == (offset, spot.program)) {
            continue;
        }
        let Spot { program, on_return, cookie, symbol, why, .. } = spot;
        points.push(Point { program, offset, on_return, cookie, symbol, why });
    }
    Ok(Some(Plan { library: "openssl", version: version(&elf)?, points }))
}

/// This host's machine type.
fn host() -> Machine {
    if cfg!(target_arch = "aarch64") { Machine::Aarch64 } else { Machine::X86_64 }
}

/// Functions beside reading and writing: what runs there, with how many arguments.
fn others(symbols: &Symbols) -> Vec<(Program, &'static str, Symbol, usize)> {
    let handshake: &[&str] = match symbols.get("SSL_do_handshake") {
        Some(_) => &["SSL_do_handshake"],
        None => &["SSL_connect", "SSL_accept"],
    };
    // What is cleared begins anew with another socket.
    let free = [(Program::Free, "SSL_free", 1), (Program::Free, "SSL_clear", 1)];
    let marks = handshake.iter().map(|name| (Program::Mark, *name, 1));
    let descriptors = ["SSL_set_fd", "SSL_set_rfd", "SSL_set_wfd"].map(|name| (Program::Descriptor, name, 2));
    let all = free.into_iter().chain(marks).chain(descriptors);
    all.filter_map(|(program, name, n)| symbols.get(name).map(|(name, symbol)| (program, name, symbol, n))).collect()
}

fn x86_64<B: Bytes + ?Sized>(elf: &Elf<B>, symbols: &Symbols, options: Options) -> Result<Vec<Spot>, elf::Error> {
    let map = Map(elf.functions()?);
    let mut spots = Vec::new();
    for (program, name, symbol, arguments) in others(symbols) {
        let function = Function::read(elf, &map, name, symbol, 0)?;
        spots.extend(place::at_entry(program, &function, arguments));
    }
    for (operation, names) in [(role::READ, &READ[..]), (role::WRITE, &WRITE[..])] {
        let mut functions = Vec::new();
        for (name, out) in names {
            if let Some((name, symbol)) = symbols.get(name) {
                functions.push(Function::read(elf, &map, name, symbol, *out)?);
            }
        }
        spots.extend(place::operation(elf, &map, operation, &functions, options)?);
    }
    Ok(spots)
}

/// The exported functions at their entries, results by return probes: all that is done without a decoder.
fn aarch64(symbols: &Symbols, options: Options) -> Vec<Spot> {
    let at = |program, symbol: Symbol, name, cookie, on_return| {
        let why = if on_return { "return probe" } else { "first instruction of the function" }.to_owned();
        Spot { program, address: symbol.address, on_return, cookie, symbol: name, why }
    };
    let mut spots: Vec<_> =
        others(symbols).into_iter().map(|(program, name, symbol, _)| at(program, symbol, name, 0, false)).collect();
    if !options.return_probes {
        return spots;
    }
    for (operation, names) in [(role::READ, &READ[..]), (role::WRITE, &WRITE[..])] {
        for (name, out) in names {
            let Some((name, symbol)) = symbols.get(name) else { continue };
            let (kind, count) = if *out == 0 { (role::INT, role::COUNT) } else { (u64::from(*out) << role::OUT, 0) };
            spots.push(at(Program::Result, symbol, name, operation | count, true));
            spots.push(at(Program::Call, symbol, name, operation | kind, false));
        }
    }
    spots
}

/// What the file says of its version: the text that OpenSSL and `LibreSSL` have in libcrypto and in programs, else
/// the newest version of a symbol that libssl defines.
fn version<B: Bytes + ?Sized>(elf: &Elf<B>) -> Result<String, elf::Error> {
    let mut found = String::new();
    let finder = memchr::memmem::Finder::new("SSL ");
    elf.constants(|piece| {
        for at in finder.find_iter(piece) {
            let name = ["Open", "Libre"].into_iter().find(|n| piece[..at].ends_with(n.as_bytes()));
            if let (Some(name), Some(number)) = (name, number(&piece[at + 4..])) {
                found = format!("{name}SSL {number}");
                return false;
            }
        }
        true
    })?;
    if found.is_empty() {
        let mut newest = None;
        let finder = memchr::memmem::Finder::new("OPENSSL_");
        elf.dynamic_names(|piece| {
            for at in finder.find_iter(piece) {
                newest = newest.max(symbol_version(&piece[at + 8..]));
            }
            true
        })?;
        if let Some([a, b, c]) = newest {
            found = format!("OpenSSL {a}.{b}.{c} or later");
        }
    }
    Ok(found)
}

/// `3.0.19` or `1.1.1w` at the beginning of a text, if a space follows it: two dots, no more than 16 characters.
fn number(text: &[u8]) -> Option<&str> {
    let end = text.iter().take(17).position(|b| *b == b' ')?;
    let number = std::str::from_utf8(&text[..end]).ok()?;
    let plain = number.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
    (plain && number.starts_with(|c: char| c.is_ascii_digit()) && number.matches('.').count() == 2).then_some(number)
}

/// `3.0.0` or `1_1_1` and the end of the name.
fn symbol_version(text: &[u8]) -> Option<[u16; 3]> {
    let end = text.iter().take(16).position(|b| *b == 0)?;
    let mut numbers = text[..end].split(|b| matches!(b, b'.' | b'_'));
    let mut next = || std::str::from_utf8(numbers.next()?).ok()?.parse().ok();
    let version = [next()?, next()?, next()?];
    numbers.next().is_none().then_some(version)
}
