//! Probes in code of our own and in a library: attached, hit, taken away, left to a child.

use std::fs::File;
use std::hint::black_box;
use std::time::Instant;

use super::*;
use crate::probe::code;

/// Each of these is probed where it begins.
macro_rules! places {
    ($($name:ident $number:literal),*) => {
        $(#[inline(never)] extern "C" fn $name() -> u64 { black_box($number) })*
        const PLACES: &[extern "C" fn() -> u64] = &[$($name),*];
    };
}
places!(place0 100, place1 101, place2 102, place3 103, place4 104, place5 105, place6 106, place7 107, place8 108,
    place9 109, place10 110, place11 111, place12 112, place13 113, place14 114);

fn place(number: usize) -> (File, u64, usize) {
    let address = PLACES[number % PLACES.len()] as usize;
    let (file, offset) = code::file_of(address).unwrap();
    (file, offset, address)
}

fn byte(address: usize) -> u8 {
    // SAFETY: the address of a function's code, which is readable.
    unsafe { std::ptr::read_volatile(address as *const u8) }
}

#[test]
fn ten_points_are_placed_and_taken_away() {
    let program = match nothing() {
        Ok(program) => program,
        Err(error) => return eprintln!("skipped: no program can be loaded here: {error}"),
    };
    let before: Vec<u8> = (0..10).map(|number| byte(place(number).2)).collect();
    let begun = Instant::now();
    let mut probes = Vec::new();
    for number in 0..10 {
        let (file, offset, _) = place(number);
        match attach(program.as_fd(), file.as_fd(), offset, number % 2 == 1, number as u64) {
            Ok(probe) => probes.push(probe),
            Err(error) => return eprintln!("skipped: {error}"),
        }
    }
    let attached = begun.elapsed();
    for number in 0..10 {
        let (_, _, address) = place(number);
        assert_ne!(byte(address), before[number], "probe {number} is in the code");
        assert_eq!(PLACES[number](), 100 + number as u64, "a probed function works as before");
    }
    let begun = Instant::now();
    drop(probes);
    eprintln!("10 points: attached in {attached:?}, detached in {:?}", begun.elapsed());
    for (number, expected) in before.iter().enumerate() {
        assert_eq!(byte(place(number).2), *expected, "probe {number} is gone");
    }
}

/// They are left at once, and go in time; what the parent holds is not held on to by the child.
#[test]
fn probes_that_are_left_go_by_themselves() {
    let Ok(program) = nothing() else { return eprintln!("skipped: no program can be loaded here") };
    let before: Vec<u8> = (10..15).map(|number| byte(place(number).2)).collect();
    let mut probes = Vec::new();
    for number in 10..15 {
        let (file, offset, _) = place(number);
        match attach(program.as_fd(), file.as_fd(), offset, false, 0) {
            Ok(probe) => probes.push(probe),
            Err(error) => return eprintln!("skipped: {error}"),
        }
    }
    let (mut reader, writer) = io::pipe().unwrap();
    let begun = Instant::now();
    assert!(leave(probes), "a child took them");
    let took = begun.elapsed();
    drop(writer);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "nobody else holds the other end");
    assert!((0..5).any(|number| byte(place(number + 10).2) != before[number]), "that came before the end");
    while (0..5).any(|number| byte(place(number + 10).2) != before[number]) {
        assert!(begun.elapsed() < Duration::from_secs(20), "the probes are still there");
        std::thread::sleep(Duration::from_millis(1));
    }
    eprintln!("5 points left in {took:?}, gone after {:?}", begun.elapsed());
}

#[test]
fn refusals_say_what_to_do() {
    let denied = placing(&io::Error::from_raw_os_error(libc::EPERM), 0x10).to_string();
    assert!(denied.contains("0x10") && denied.contains("CAP_SYS_ADMIN"), "{denied}");
    let old = linking(&io::Error::from_raw_os_error(libc::EINVAL), 0).to_string();
    assert!(old.contains("5.15"), "{old}");
    assert_eq!(placing(&io::Error::from_raw_os_error(libc::EPERM), 0).kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn what_is_no_code_is_refused() {
    let Ok(program) = nothing() else { return eprintln!("skipped: no program can be loaded here") };
    let file = File::open("/proc/self/exe").unwrap();
    let error = attach(program.as_fd(), file.as_fd(), 1 << 40, false, 0).unwrap_err();
    assert!(error.to_string().contains("0x10000000000"), "{error}");
}
