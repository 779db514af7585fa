//! Where the code of a function of this process lies on disk.
//!
//! In: an address. Out: the file and the offset in it, for a probe on ourselves. Called by [`super::returns`].

use std::fs::{self, File};
use std::io;

/// The file that is mapped at `address`, and the address's offset in it.
pub(crate) fn file_of(address: usize) -> io::Result<(File, u64)> {
    let table = fs::read_to_string("/proc/self/maps")?;
    let missing = || io::Error::other(format!("no file is mapped at {address:#x} (/proc/self/maps)"));
    let (start, end, offset) = table.lines().find_map(|line| around(line, address)).ok_or_else(missing)?;
    // The link is the very file, also when it was renamed or deleted since; it takes CAP_SYS_ADMIN or
    // CAP_CHECKPOINT_RESTORE. Without, our code is most likely that of our executable.
    let file =
        File::open(format!("/proc/self/map_files/{start:x}-{end:x}")).or_else(|_| File::open("/proc/self/exe"))?;
    Ok((file, (address - start) as u64 + offset))
}

/// Start, end and file offset of a line of `proc_pid_maps(5)` when it holds the address.
fn around(line: &str, address: usize) -> Option<(usize, usize, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    let offset = u64::from_str_radix(fields.nth(1)?, 16).ok()?;
    (start <= address && address < end).then_some((start, end, offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_its_start_and_not_its_end() {
        let line = "55d0c0a00000-55d0c0b00000 r-xp 00023000 fe:00 1234  /usr/bin/x y";
        assert_eq!(around(line, 0x55d0_c0a0_0000), Some((0x55d0_c0a0_0000, 0x55d0_c0b0_0000, 0x23000)));
        assert_eq!(around(line, 0x55d0_c0b0_0000), None);
        assert_eq!(around("", 0), None);
        assert_eq!(around("zz-1 r-xp 0", 0), None);
    }
}
