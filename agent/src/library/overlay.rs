//! The real file behind one that is seen through overlayfs.
//!
//! In: a file on an overlay, and the mount table of a process that sees it. Out: the file in the layer that it
//! comes from. Called by `registry` for each new file on an overlay.
//!
//! Containers of one image share their lower layers. The kernel puts a probe on the inode of the layer
//! (`d_real_inode`), so two probes through two overlays would be two probes in one place, and each call would
//! count twice. A probe through the layer's own path does not hold the container's overlay, either.
//!
//! The layers stand in the mount's options, as paths of whoever mounted it: usually the host. What is found
//! there is taken only when it agrees with the file on the overlay in size, time and mode.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::file::{Place, Within, open_within};
use crate::probe::cgroup::unescape;

/// Overlays stack at most twice (`FILESYSTEM_MAX_STACK_DEPTH`).
const MAX_DEPTH: usize = 3;
/// Docker allows 128; the kernel 500.
const MAX_LAYERS: usize = 512;
/// More of a mount table is not read.
const MAX_TABLE: u64 = 16 << 20;
/// Docker and Podman mount from their own folder, with short names in it.
const STORES: [&str; 3] = [
    "/var/lib/docker/overlay2",
    "/var/lib/containers/storage/overlay",
    "/var/snap/docker/common/var-lib-docker/overlay2",
];

/// One overlay mount of a mount table.
#[derive(Debug, PartialEq, Eq)]
struct Overlay {
    /// Folder of the overlay that is mounted, usually `/`.
    root: PathBuf,
    /// Where.
    point: PathBuf,
    /// Topmost first.
    layers: Vec<PathBuf>,
}

/// Finds the real file of `place`, which a process sees as `path`. `process` is its folder (`/proc/PID`), and
/// `hosts` are the roots in which layers are looked for. An error says why not.
pub(super) fn real(place: &Place, process: &Path, path: &Path, hosts: &[PathBuf]) -> Result<Place, String> {
    find(place, process, path, hosts, 0)
}

fn find(place: &Place, process: &Path, path: &Path, hosts: &[PathBuf], depth: usize) -> Result<Place, String> {
    let mut table = Vec::new();
    let read = File::open(process.join("mountinfo")).and_then(|file| file.take(MAX_TABLE).read_to_end(&mut table));
    read.map_err(|error| format!("its mount table cannot be read: {error}"))?;
    let overlay = overlay_of(&table, mount_id(place), path).ok_or("its mount is not in its process's mount table")?;
    let below = path.strip_prefix(&overlay.point).map_err(|_| "it is not below its mount")?;
    let inside = overlay.root.join(below);
    let inside = inside.strip_prefix("/").unwrap_or(&inside);
    let mut why = "none of its layers can be reached from here".to_owned();
    for host in hosts {
        match in_layers(place, &overlay.layers, inside, host) {
            Ok((found, layer)) => {
                if depth + 1 < MAX_DEPTH && found.on_overlay().unwrap_or(false) {
                    // A layer that itself lies on an overlay, of the host's table.
                    return find(&found, Path::new("/proc/self"), &layer.join(inside), hosts, depth + 1);
                }
                return Ok(found);
            }
            Err(reason) => why = reason,
        }
    }
    Err(why)
}

/// Number of the mount that a file was opened on: `STATX_MNT_ID` (Linux 5.8).
fn mount_id(place: &Place) -> Option<u64> {
    const STATX_MNT_ID: libc::c_uint = 0x1000;
    // SAFETY: all zeros is a valid value; the kernel fills it in.
    let mut facts: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: open descriptor, empty name with the flag that allows it, and a structure of the right type.
    let done = unsafe {
        libc::statx(
            place.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC,
            STATX_MNT_ID,
            &raw mut facts,
        )
    };
    (done == 0 && facts.stx_mask & STATX_MNT_ID != 0).then_some(facts.stx_mnt_id)
}

/// The overlay of that number, else the deepest and last one above the path.
fn overlay_of(table: &[u8], id: Option<u64>, path: &Path) -> Option<Overlay> {
    let mut best = None;
    for line in table.split(|byte| *byte == b'\n') {
        let Some((number, overlay)) = parse_mount(line) else { continue };
        if !path.starts_with(&overlay.point) {
            continue;
        }
        if id == Some(number) {
            return Some(overlay);
        }
        let depth = overlay.point.components().count();
        if best.as_ref().is_none_or(|(deepest, _)| depth >= *deepest) {
            best = Some((depth, overlay));
        }
    }
    best.map(|(_, overlay)| overlay)
}

/// A line of `proc_pid_mountinfo(5)`, when it is an overlay.
fn parse_mount(line: &[u8]) -> Option<(u64, Overlay)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let number = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let (root, point) = (fields.nth(2)?, fields.next()?);
    // Any number of optional fields, then `-`, type, source, options.
    fields.find(|field| *field == b"-")?;
    if fields.next()? != b"overlay" {
        return None;
    }
    let layers = layers(fields.nth(1)?);
    Some((number, Overlay { root: path(unescape(root)), point: path(unescape(point)), layers }))
}

/// Layers from the mount's options: the upper one, then the lower ones. Where options hold commas, they are
/// written as octal numbers, so the options can be taken apart first.
fn layers(options: &[u8]) -> Vec<PathBuf> {
    let (mut upper, mut lower) = (Vec::new(), Vec::new());
    for option in options.split(|byte| *byte == b',') {
        let Some(at) = option.iter().position(|byte| *byte == b'=') else { continue };
        let value = unescape(&option[at + 1..]);
        match &option[..at] {
            b"upperdir" => upper.push(path(value)),
            b"lowerdir" => lower.extend(split_lower(&value)),
            // One layer each (Linux 6.8), without escapes of their own.
            b"lowerdir+" | b"datadir+" => lower.push(path(value)),
            _ => {}
        }
    }
    upper.append(&mut lower);
    upper.truncate(MAX_LAYERS);
    upper
}

/// `a:b\:c::data`: colons divide, two of them come before a layer of data alone, a backslash hides them.
fn split_lower(value: &[u8]) -> Vec<PathBuf> {
    let mut parts = vec![Vec::new()];
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b':' => parts.push(Vec::new()),
            b'\\' => {
                if let (Some(next), Some(part)) = (bytes.next(), parts.last_mut()) {
                    part.push(*next);
                }
            }
            _ => {
                if let Some(part) = parts.last_mut() {
                    part.push(*byte);
                }
            }
        }
    }
    parts.into_iter().filter(|part| !part.is_empty()).map(path).collect()
}

fn path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// Looks for a path in layers, topmost first, under one root. Returns the layer, too.
fn in_layers(place: &Place, layers: &[PathBuf], inside: &Path, host: &Path) -> Result<(Place, PathBuf), String> {
    let mut inside = inside.to_owned();
    let mut reached = false;
    for layer in layers {
        let Some((directory, layer)) = open_layer(host, layer) else { continue };
        reached = true;
        let Ok(file) = open_within(directory.as_fd(), &inside, libc::O_PATH | libc::O_NOFOLLOW, Within::Beneath) else {
            continue;
        };
        let Ok(metadata) = file.metadata() else { continue };
        // A whiteout: what lies below is deleted. A process may have it mapped all the same.
        if metadata.file_type().is_char_device() && metadata.rdev() == 0 {
            continue;
        }
        // An upper file that is only metadata (mount option metacopy): its data lies in a lower layer, perhaps
        // under another name.
        if attribute(&file, c"trusted.overlay.metacopy").is_some() {
            let redirect = attribute(&file, c"trusted.overlay.redirect").filter(|name| !name.is_empty());
            if let Some(redirect) = redirect.map(path) {
                inside = match redirect.strip_prefix("/") {
                    Ok(absolute) => absolute.to_owned(),
                    Err(_) => inside.with_file_name(redirect),
                };
            }
            continue;
        }
        // Another file has the name by now, or the layer is another's.
        let facts = |of: &fs::Metadata| (of.len(), of.mtime(), of.mtime_nsec(), of.mode());
        match Place::of(file) {
            Ok(found) if facts(found.metadata()) == facts(place.metadata()) => return Ok((found, layer)),
            _ => {}
        }
    }
    Err(if reached { "none of its layers has it" } else { "none of its layers can be reached from here" }.into())
}

/// Opens a layer's folder below a root. A relative one is looked for where the known engines mount from.
fn open_layer(host: &Path, layer: &Path) -> Option<(File, PathBuf)> {
    let open = |path: PathBuf| {
        let below = host.join(path.strip_prefix("/").unwrap_or(&path));
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC);
        Some((options.open(below).ok()?, path))
    };
    if layer.is_absolute() {
        return open(layer.to_owned());
    }
    STORES.iter().find_map(|store| open(Path::new(store).join(layer)))
}

/// An extended attribute of an open file.
fn attribute(file: &File, key: &std::ffi::CStr) -> Option<Vec<u8>> {
    let name = format!("/proc/self/fd/{}\0", file.as_raw_fd());
    let mut value = [0u8; 4096];
    // SAFETY: both names end with a NUL, and the room's size is given.
    let length = unsafe { libc::getxattr(name.as_ptr().cast(), key.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    Some(value[..usize::try_from(length).ok()?].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_read_from_all_forms_of_options() {
        let text = |options: &str| {
            layers(options.as_bytes()).iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(text("rw,lowerdir=l/A:l/B,upperdir=/u,workdir=/w"), ["/u", "l/A", "l/B"]);
        assert_eq!(text(r"ro,lowerdir=/a\134:b:/c\054d:/e\040f::/data"), ["/a:b", "/c,d", "/e f", "/data"]);
        assert_eq!(text("rw,lowerdir+=/a:b,lowerdir+=/c,datadir+=/d,upperdir=/u"), ["/u", "/a:b", "/c", "/d"]);
        assert_eq!(text("rw"), [""; 0]);
        assert_eq!(text(r"lowerdir=/a\134"), ["/a"]);
    }

    #[test]
    fn the_mount_is_found_by_number_else_by_place() {
        let table = b"30 1 0:40 / / rw - overlay overlay rw,lowerdir=/one\n\
            31 30 0:41 / /data rw shared:2 - ext4 /dev/x rw\n\
            32 30 0:42 /part /data/deep\\040er rw - overlay overlay rw,lowerdir=/two\n\
            33 30 0:43 / / rw - overlay overlay rw,lowerdir=/three\n\
            bad line - overlay\n\n";
        let layer =
            |id, path: &str| overlay_of(table, id, Path::new(path)).map(|found| found.layers[0].display().to_string());
        assert_eq!(layer(Some(30), "/usr/lib/a").as_deref(), Some("/one"));
        assert_eq!(layer(None, "/usr/lib/a").as_deref(), Some("/three"), "the last one lies on top");
        assert_eq!(layer(None, "/data/deep er/a").as_deref(), Some("/two"));
        assert_eq!(layer(Some(32), "/usr/lib/a").as_deref(), Some("/three"), "a number that cannot be right");
        let found = overlay_of(table, Some(32), Path::new("/data/deep er/a")).unwrap();
        assert_eq!((found.root.as_path(), found.point.as_path()), (Path::new("/part"), Path::new("/data/deep er")));
    }
}
