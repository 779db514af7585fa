//! Files that are written while they are probed: no program that maps the new content meets an old breakpoint.

use std::fs::OpenOptions;
use std::os::unix::fs::chown;

use super::*;

/// As many as OpenSSL has.
const POINTS: usize = 14;

/// What makes a library of this test another one.
const SECOND: &str = "written over, ";

/// Where a library's first or second set of probes is: instructions of one byte, so that the kernel takes them.
fn points(bytes: &[u8], second: bool) -> Vec<u64> {
    let first = code_offset(bytes).unwrap();
    let code = bytes.iter().enumerate().skip(first as usize);
    // `push %rbp`. Elsewhere, every fourth byte begins an instruction.
    let fits = |(at, byte): &(usize, &u8)| if cfg!(target_arch = "x86_64") { **byte == 0x55 } else { at % 16 == 0 };
    code.filter(fits).map(|(at, _)| at as u64).skip(if second { POINTS } else { 0 }).take(POINTS).collect()
}

fn is_second(bytes: &[u8]) -> bool {
    bytes.windows(SECOND.len()).any(|window| window == SECOND.as_bytes())
}

fn planner(mark: &str) -> Planner {
    let plan = super::planner(mark, 1);
    Arc::new(move |file: &File| {
        let Some(mut plan) = plan(file)? else { return Ok(None) };
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let bytes = std::fs::read(path).map_err(wrong)?;
        let second = is_second(&bytes);
        plan.version = if second { "2" } else { "1" }.into();
        let point = plan.points.remove(0);
        plan.points = points(&bytes, second).into_iter().map(|offset| Point { offset, ..point.clone() }).collect();
        Ok(Some(plan))
    })
}

/// A file as programs see it, breakpoints and all.
struct Mapped(*const u8, usize);

impl Mapped {
    fn new(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let len = file.metadata().unwrap().len() as usize;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE);
        // SAFETY: a new mapping of an open file.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, file.as_raw_fd(), 0) };
        assert_ne!(address, libc::MAP_FAILED, "{}", io::Error::last_os_error());
        Self(address.cast(), len)
    }

    /// What of these differs from the file.
    fn breakpoints(&self, bytes: &[u8], offsets: &[u64]) -> usize {
        let differs = |offset: &&u64| {
            assert!((**offset as usize) < self.1);
            // SAFETY: inside of the mapping, which the file is not shorter than while it is read.
            unsafe { self.0.add(**offset as usize).read_volatile() != bytes[**offset as usize] }
        };
        offsets.iter().filter(differs).count()
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`.
        unsafe { libc::munmap(self.0.cast_mut().cast(), self.1) };
    }
}

fn start(setting: &mut Setting) -> Libraries {
    let (plan, folder) = (planner(&setting.mark), setting.folder.path().to_owned());
    setting.start(1, |settings| (settings.plan, settings.folders) = (plan, vec![folder]))
}

fn second(setting: &Setting) -> Vec<u8> {
    [&setting.source, SECOND.as_bytes(), MARK.as_bytes(), setting.mark.as_bytes()].concat()
}

fn is_at(version: &str) -> impl Fn(&Status) -> bool {
    move |status| attached(status).iter().any(|found| found.version == version && found.probes == POINTS)
}

#[test]
fn a_writer_waits_until_the_probes_are_gone_and_the_new_content_is_planned_anew() {
    let Some(mut setting) = setting("lease") else { return };
    let path = setting.library("libssl.so.3");
    let new = second(&setting);
    let (old_points, new_points) = (points(&setting.source, false), points(&setting.source, true));
    let libraries = start(&mut setting);
    let status = libraries.status();
    assert!(is_at("1")(&status), "{status:#?}");
    assert_eq!(attached(&status)[0].note, None, "a lease was had");
    let mapped = Mapped::new(&path);
    assert_eq!(mapped.breakpoints(&setting.source, &old_points), POINTS);

    let begun = Instant::now();
    let mut file = OpenOptions::new().write(true).open(&path).unwrap();
    let waited = begun.elapsed();
    // Looked at first: nothing may be left at this moment, in programs that had it mapped before.
    assert_eq!(mapped.breakpoints(&setting.source, &old_points), 0);
    eprintln!("a writer waited {waited:?} for {POINTS} probes");
    drop(mapped);
    file.set_len(0).unwrap();
    file.write_all(&new).unwrap();
    let mapped = Mapped::new(&path);
    assert_eq!(mapped.breakpoints(&new, &old_points), 0, "nor may there be any in the new content");
    wait(&libraries, "it is known to be written", |status| {
        attached(status).is_empty()
            && status.targets.iter().any(|found| found.error.as_ref().is_some_and(|why| why.contains("being written")))
    });
    assert_eq!(mapped.breakpoints(&new, &new_points), 0, "it is not probed while it is open");
    drop(file);
    let begun = Instant::now();
    wait(&libraries, "the new content is probed", is_at("2"));
    eprintln!("the new content was probed {:?} after it was closed", begun.elapsed());
    assert_eq!(mapped.breakpoints(&new, &old_points), 0);
    assert_eq!(mapped.breakpoints(&new, &new_points), POINTS);
}

#[test]
fn a_truncating_copy_waits_as_well() {
    let Some(mut setting) = setting("copy") else { return };
    let path = setting.library("libssl.so.3");
    let (new, unpacked) = (second(&setting), setting.path("unpacked"));
    std::fs::write(&unpacked, &new).unwrap();
    let old_points = points(&setting.source, false);
    let libraries = start(&mut setting);
    assert!(is_at("1")(&libraries.status()), "{:#?}", libraries.status());
    let begun = Instant::now();
    assert!(Command::new("cp").args([&unpacked, &path]).status().unwrap().success());
    eprintln!("cp took {:?}", begun.elapsed());
    wait(&libraries, "the new content is probed", is_at("2"));
    let mapped = Mapped::new(&path);
    assert_eq!(mapped.breakpoints(&new, &old_points), 0);
    assert_eq!(mapped.breakpoints(&new, &points(&new, true)), POINTS);
    // Of the lease, nothing is left at the end.
    libraries.stop();
    let begun = Instant::now();
    OpenOptions::new().write(true).open(&path).unwrap();
    let waited = begun.elapsed();
    assert!(waited < Duration::from_secs(5), "{waited:?}");
}

/// The real plan of the real library: what an upgrade in place waits.
#[test]
fn openssl_is_written_over_after_its_probes_are_gone() {
    let Some(setting) = setting("openssl") else { return };
    let host = Root::open(Path::new("/")).unwrap();
    let all = host.folders(&[]).into_iter().flat_map(|folder| Root::libraries(&folder));
    let Some(library) = all.into_iter().find(|path| path.ends_with("libssl.so.3")) else {
        return eprintln!("skipped: no libssl.so.3 here");
    };
    let (path, bytes) = (setting.path("libssl.so.3"), std::fs::read(library).unwrap());
    std::fs::write(&path, &bytes).unwrap();
    let places = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (seen, own) = (Arc::clone(&places), path.clone());
    let mut settings = Settings::new(Arc::new(move |file: &File| {
        let name = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default();
        let planned = if name == own { plan(file, Options { return_probes: true })? } else { None };
        seen.lock().unwrap().extend(planned.iter().flat_map(|plan| &plan.points).map(|point| point.offset));
        Ok(planned)
    }));
    settings.folders = vec![setting.folder.path().to_owned()];
    let all = [Program::Call, Program::Result, Program::Mark, Program::Descriptor, Program::Free];
    let libraries = Libraries::start(all.map(|name| (name, uprobe::nothing().unwrap())).into(), settings);
    let status = libraries.status();
    let found = attached(&status)[0];
    let points = places.lock().unwrap().clone();
    assert_eq!(found.probes, points.len());
    let mapped = Mapped::new(&path);
    assert_eq!(mapped.breakpoints(&bytes, &points), points.len());
    let begun = Instant::now();
    let mut file = OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
    let waited = begun.elapsed();
    file.write_all(&bytes[..bytes.len() / 2]).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    let mut new = bytes.clone();
    new[bytes.len() / 2..].fill(0);
    let again = Mapped::new(&path);
    assert_eq!((mapped.breakpoints(&new, &points), again.breakpoints(&new, &points)), (0, 0));
    eprintln!("who wrote {} {} over waited {waited:?} for {} probes", found.library, found.version, points.len());
}

#[test]
fn what_is_open_for_writing_is_probed_once_it_is_closed_and_again_when_nothing_was_written() {
    let Some(mut setting) = setting("busy") else { return };
    let path = setting.library("libssl.so.3");
    let writer = OpenOptions::new().write(true).open(&path).unwrap();
    let libraries = start(&mut setting);
    let status = libraries.status();
    let found = &status.targets[0];
    assert_eq!((found.state, found.probes), (State::Failed, 0));
    assert!(found.error.as_ref().unwrap().contains("being written"), "{found:?}");
    drop(writer);
    wait(&libraries, "it is closed", is_at("1"));
    let points = points(&setting.source, false);
    let mapped = Mapped::new(&path);
    assert_eq!(mapped.breakpoints(&setting.source, &points), POINTS);
    let writer = OpenOptions::new().write(true).open(&path).unwrap();
    assert_eq!(mapped.breakpoints(&setting.source, &points), 0);
    wait(&libraries, "its loss is known", |status| attached(status).is_empty());
    drop(writer);
    wait(&libraries, "it is closed again", is_at("1"));
    assert_eq!(mapped.breakpoints(&setting.source, &points), POINTS);
}

/// The lease is on the layer's file, the writer comes through the overlay.
#[test]
fn a_writer_in_a_container_waits_as_well() {
    let Some(mut setting) = setting_in("container lease", Path::new(APART)) else { return };
    let base = setting.folder.path().to_owned();
    std::fs::create_dir_all(setting.path("image")).unwrap();
    let container = Container::new(&base, &setting.path("image"), "a");
    let path = setting.library("a/upper/opt/private/libwhatever.so");
    let libraries = start(&mut setting);
    let Some(mut loader) = Loader::start_in(Some(container)) else { return };
    loader.load(Path::new("/opt/private/libwhatever.so"));
    let status = wait(&libraries, "the library is found", is_at("1"));
    assert_eq!(attached(&status)[0].real, Some(path));
    let inside = PathBuf::from(format!("/proc/{}/root/opt/private/libwhatever.so", loader.0.id()));
    let (mapped, points) = (Mapped::new(&inside), points(&setting.source, false));
    assert_eq!(mapped.breakpoints(&setting.source, &points), POINTS);
    let begun = Instant::now();
    OpenOptions::new().write(true).open(&inside).unwrap();
    let waited = begun.elapsed();
    assert_eq!(mapped.breakpoints(&setting.source, &points), 0);
    eprintln!("a writer in a container waited {waited:?}");
}

/// Takes `CAP_LEASE` from this thread, and so from those that it starts.
fn without_leases() {
    /// `struct __user_cap_header_struct` and `__user_cap_data_struct` of `linux/capability.h`, version 3.
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    const CAP_LEASE: u32 = 28;
    let mut header = Header { version: 0x2008_0522, pid: 0 };
    // Effective, permitted, inheritable, the low half first.
    let mut data = [[0u32; 3]; 2];
    // SAFETY: structures as the kernel wants them.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()), 0);
        data[0][0] &= !(1 << CAP_LEASE);
        assert_eq!(libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()), 0);
    }
}

#[test]
fn without_a_lease_the_first_write_takes_the_probes_away() {
    let Some(mut setting) = setting("watch") else { return };
    let path = setting.library("libssl.so.3");
    let (old_points, new) = (points(&setting.source, false), second(&setting));
    chown(&path, Some(12345), None).unwrap();
    without_leases();
    let libraries = start(&mut setting);
    let status = libraries.status();
    assert!(is_at("1")(&status), "{status:#?}");
    assert!(attached(&status)[0].note.as_ref().unwrap().contains("no leases"), "{status:#?}");
    let mapped = Mapped::new(&path);
    assert_eq!(mapped.breakpoints(&setting.source, &old_points), POINTS);
    let begun = Instant::now();
    let mut file = OpenOptions::new().write(true).open(&path).unwrap();
    let waited = begun.elapsed();
    file.write_all(&new).unwrap();
    while mapped.breakpoints(&setting.source, &old_points) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "the probes are still there");
        std::thread::yield_now();
    }
    eprintln!("a writer waited {waited:?}; the probes were gone {:?} after it began", begun.elapsed());
    drop(file);
    wait(&libraries, "the new content is probed", is_at("2"));
    let mapped = Mapped::new(&path);
    assert_eq!(mapped.breakpoints(&new, &old_points), 0);
    assert_eq!(mapped.breakpoints(&new, &points(&new, true)), POINTS);
}

#[test]
fn what_there_was_no_room_for_is_probed_when_there_is() {
    let Some(mut setting) = setting("room") else { return };
    let Some(mut loader) = Loader::start() else { return };
    let paths = ["libssl.so.1", "libssl.so.3"].map(|name| setting.library(name));
    let folder = setting.folder.path().to_owned();
    let libraries = setting.start(1, |settings| {
        settings.folders = vec![folder];
        settings.limit = 1;
        settings.let_go_every = Duration::from_millis(100);
    });
    let first = attached(&libraries.status())[0].path.clone();
    let other = paths.iter().find(|path| **path != first).unwrap();
    std::fs::remove_file(&first).unwrap();
    wait(&libraries, "the first is let go", |status| status.let_go == 1);
    loader.load(other);
    let status = wait(&libraries, "the other is probed", |status| !attached(status).is_empty());
    assert_eq!(attached(&status)[0].path, *other);
}
