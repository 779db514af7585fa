//! The thread at work on this machine: real processes, real mappings, probes that run a program of nothing.
//!
//! The planner knows a test's files by what they end with, so no test touches what others have on this machine.

use std::ffi::CString;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::super::registry::Sight;
use super::super::roots::Root;
use super::super::status::{Found, State};
use super::super::{ElfError, Options, Point, mappings, plan};
use super::*;

mod written;

/// What the test's libraries end with; the loader does not mind.
const MARK: &str = "a library of the discovery tests, ";

/// A library that any program can load: one that is small, and there on every glibc system.
fn small_library() -> Option<PathBuf> {
    let mut found = None;
    let mut buffer = Vec::new();
    mappings::of_process(
        std::process::id(),
        &mut buffer,
        |_| true,
        |mapping| {
            if mapping.path.to_string_lossy().contains("libgcc_s") {
                found = Some(mapping.path);
            }
        },
    )
    .ok()?;
    found
}

/// Offset of something that is code: the entry of the first executable segment, from the program headers.
fn code_offset(bytes: &[u8]) -> Option<u64> {
    let number = |at: usize, len: usize| {
        let mut value = [0; 8];
        value[..len].copy_from_slice(bytes.get(at..at + len)?);
        Some(u64::from_le_bytes(value))
    };
    let (table, count) = (number(32, 8)? as usize, number(56, 2)? as usize);
    (0..count).map(|index| table + index * 56).find_map(|at| {
        let executable = number(at, 4)? == 1 && number(at + 4, 4)? & 1 == 1;
        executable.then(|| number(at + 8, 8)).flatten().map(|offset| offset + 0x100)
    })
}

/// What a planner says of a file that it cannot read.
fn wrong(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Elf(ElfError::Read { offset: 0, length: 0, source: io::Error::other(why) })
}

/// Plans `points` probes in files of one test.
fn planner(mark: &str, points: u64) -> Planner {
    let mark = format!("{MARK}{mark}").into_bytes();
    Arc::new(move |file: &File| {
        let mut bytes = Vec::new();
        if file.metadata().map_err(wrong)?.len() > 4 << 20 {
            return Ok(None);
        }
        (&*file).read_to_end(&mut bytes).map_err(wrong)?;
        if !bytes.ends_with(&mark) {
            return Ok(None);
        }
        let first = code_offset(&bytes).ok_or_else(|| wrong("no code"))?;
        let point = |number| Point {
            program: Program::Call,
            // On x86_64 any byte may be the first of an instruction for all the kernel knows; it refuses some.
            offset: first + number * 16,
            on_return: false,
            cookie: number,
            symbol: "test",
            why: "because".into(),
        };
        let points = (0..points).map(point).collect();
        Ok(Some(Plan { library: "test", version: "1".into(), points }))
    })
}

/// A file system that is not the root's: layers of an overlay may not lie in one another.
const APART: &str = "/dev/shm";

struct Setting {
    folder: tempfile::TempDir,
    mark: String,
    source: Vec<u8>,
    programs: HashMap<Program, OwnedFd>,
}

/// `None`, with the reason said, where this machine does not let the tests run.
fn setting(name: &str) -> Option<Setting> {
    setting_in(name, &std::env::temp_dir())
}

fn setting_in(name: &str, base: &Path) -> Option<Setting> {
    let program = match uprobe::nothing() {
        Ok(program) => program,
        Err(error) => {
            eprintln!("skipped: no program can be loaded here: {error}");
            return None;
        }
    };
    if let Err(error) = Sideband::open() {
        eprintln!("skipped: {error}");
        return None;
    }
    let Some(library) = small_library() else {
        eprintln!("skipped: no libgcc_s is mapped here");
        return None;
    };
    let folder = tempfile::tempdir_in(base).unwrap();
    let source = std::fs::read(library).unwrap();
    let mark = format!("{name} {}", folder.path().display());
    Some(Setting { folder, mark, source, programs: HashMap::from([(Program::Call, program)]) })
}

impl Setting {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a library of this test.
    fn library(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = File::create(&path).unwrap();
        file.write_all(&self.source).unwrap();
        file.write_all(format!("{MARK}{}", self.mark).as_bytes()).unwrap();
        path
    }

    fn start(&mut self, points: u64, change: impl FnOnce(&mut Settings)) -> Libraries {
        let mut settings = Settings::new(planner(&self.mark, points));
        change(&mut settings);
        Libraries::start(std::mem::take(&mut self.programs), settings)
    }
}

/// Waits until the status is as wanted.
fn wait(libraries: &Libraries, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
    let begun = Instant::now();
    loop {
        let status = libraries.status();
        if wanted(&status) {
            return status;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}: {status:#?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn attached(status: &Status) -> Vec<&Found> {
    status.targets.iter().filter(|found| found.state == State::Attached).collect()
}

/// A python that loads what it is told on its standard input, and says so.
struct Loader(Child);

/// An overlay that becomes a process's root, in a mount namespace of its own.
struct Container {
    /// Where it is mounted.
    merged: CString,
    /// Its layers, as `mount(2)` takes them.
    options: CString,
}

impl Container {
    /// A root that is all of this machine's, below the layer `lower`, and with an upper layer of its own.
    fn new(base: &Path, lower: &Path, name: &str) -> Self {
        let folder = |kind: &str| {
            let path = base.join(name).join(kind);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let (merged, upper, work) = (folder("merged"), folder("upper"), folder("work"));
        let options = format!("lowerdir={}:/,upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        let text = |path: &Path| CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
        Self { merged: text(&merged), options: CString::new(options).unwrap() }
    }

    /// Becomes the container. In a fresh child: system calls only.
    fn enter(&self) -> io::Result<()> {
        let done = |result: libc::c_int| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
        let (none, private) = (std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
        // SAFETY: strings that end with a NUL and outlive the calls; the namespace is the child's own.
        unsafe {
            done(libc::unshare(libc::CLONE_NEWNS))?;
            done(libc::mount(none, c"/".as_ptr(), none, private, none.cast()))?;
            let (kind, options) = (c"overlay".as_ptr(), self.options.as_ptr().cast());
            done(libc::mount(kind, self.merged.as_ptr(), kind, 0, options))?;
            done(libc::chroot(self.merged.as_ptr()))?;
            done(libc::chdir(c"/".as_ptr()))
        }
    }
}

impl Loader {
    fn start() -> Option<Self> {
        Self::start_in(None)
    }

    fn start_in(container: Option<Container>) -> Option<Self> {
        let script = "import sys, ctypes\nprint('ready', flush=True)\nfor line in sys.stdin:\n    \
            ctypes.CDLL(line.strip()); print('loaded', flush=True)";
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(container) = container {
            // SAFETY: it only makes system calls.
            unsafe { command.pre_exec(move || container.enter()) };
        }
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                eprintln!("skipped: no python3, or no container of it, can be started: {error}");
                return None;
            }
        };
        let mut loader = Self(child);
        loader.answer("ready");
        Some(loader)
    }

    fn answer(&mut self, expected: &str) {
        let mut line = vec![0; expected.len() + 1];
        self.0.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        assert_eq!(line, format!("{expected}\n").as_bytes());
    }

    fn load(&mut self, path: &Path) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{}", path.display()).unwrap();
        self.answer("loaded");
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_library_in_a_folder_is_probed_before_start_returns() {
    let Some(mut setting) = setting("folder") else { return };
    let path = setting.library("libssl.so.3");
    std::os::unix::fs::symlink("libssl.so.3", setting.path("libssl.so")).unwrap();
    let folder = setting.folder.path().to_owned();
    let libraries = setting.start(2, |settings| settings.folders = vec![folder]);
    let status = libraries.status();
    let found = attached(&status);
    assert_eq!(found.len(), 1, "{status:#?}");
    assert_eq!((found[0].path.as_path(), found[0].probes, found[0].root.as_str()), (path.as_path(), 2, "host"));
    assert!(found[0].plan.contains("because"), "{}", found[0].plan);
    libraries.stop();
}

#[test]
fn a_library_that_is_loaded_later_is_found_at_once() {
    let Some(mut setting) = setting("dlopen") else { return };
    let Some(mut loader) = Loader::start() else { return };
    let libraries = setting.start(1, |_| {});
    let path = setting.library("private/libwhatever.so");
    loader.load(&path);
    let begun = Instant::now();
    let status = wait(&libraries, "the library is mapped", |status| !attached(status).is_empty());
    let took = begun.elapsed();
    eprintln!("a library loaded later was probed after {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(attached(&status)[0].path, path);
}

#[test]
fn without_mapping_records_processes_are_read_again_and_again() {
    let Some(mut setting) = setting("no records") else { return };
    let Some(mut loader) = Loader::start() else { return };
    let refused = Err(io::Error::from_raw_os_error(libc::EPERM));
    let settings = Settings::new(planner(&setting.mark, 1));
    let libraries = Libraries::start_with(std::mem::take(&mut setting.programs), settings, refused);
    let status = wait(&libraries, "the first scan", |status| status.scans > 0);
    assert!(status.notes[0].contains("once a second"), "{:?}", status.notes);
    let path = setting.library("libwhatever.so");
    loader.load(&path);
    wait(&libraries, "a later scan meets it", |status| !attached(status).is_empty());
}

#[test]
fn what_is_mapped_already_is_found_by_the_scan() {
    let Some(mut setting) = setting("scan") else { return };
    let Some(mut loader) = Loader::start() else { return };
    let path = setting.library("libwhatever.so");
    loader.load(&path);
    // Deleted files are probed as well: those who run go on running.
    std::fs::remove_file(&path).unwrap();
    let libraries = setting.start(1, |_| {});
    let status = wait(&libraries, "the scan meets it", |status| !attached(status).is_empty());
    assert_eq!(attached(&status)[0].path, path);
}

#[test]
fn a_replaced_library_is_probed_at_once_and_the_old_one_is_let_go_once_unused() {
    let Some(mut setting) = setting("upgrade") else { return };
    let Some(mut loader) = Loader::start() else { return };
    let path = setting.library("libssl.so.3");
    loader.load(&path);
    let folder = setting.folder.path().to_owned();
    let libraries = setting.start(1, |settings| {
        settings.folders = vec![folder];
        settings.let_go_every = Duration::from_millis(100);
    });
    assert_eq!(attached(&libraries.status()).len(), 1);
    let new = setting.library("unpacked");
    let begun = Instant::now();
    std::fs::rename(new, &path).unwrap();
    wait(&libraries, "the new file has probes", |status| attached(status).len() == 2);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    // The old one is deleted but mapped: three looks later it is still there.
    let looks = libraries.status().scans;
    let status = wait(&libraries, "scans go on", |status| status.scans >= looks + 3);
    assert_eq!((attached(&status).len(), status.let_go), (2, 0), "{status:#?}");
    drop(loader);
    let status = wait(&libraries, "the old file is let go", |status| status.let_go == 1);
    assert_eq!(attached(&status).len(), 1);
}

#[test]
fn a_renamed_library_keeps_its_probes_and_one_written_over_gets_new_ones() {
    let Some(mut setting) = setting("rename") else { return };
    let folder = setting.folder.path().to_owned();
    let libraries = setting.start(1, |settings| settings.folders = vec![folder]);
    let path = setting.library("libssl.so.3.new");
    let status = wait(&libraries, "the file is whole", |status| !attached(status).is_empty());
    let inspected = status.inspected;
    std::fs::rename(&path, setting.path("libssl.so.3")).unwrap();
    let status = wait(&libraries, "it was looked at again", |status| status.inspected > inspected);
    assert_eq!((attached(&status).len(), status.let_go), (1, 0));
    // Whatever it is now, it is no library any more.
    std::fs::write(setting.path("libssl.so.3"), "text").unwrap();
    wait(&libraries, "its probes are gone", |status| status.targets.is_empty());
}

#[test]
fn a_point_that_is_refused_leaves_no_half_of_a_plan() {
    let Some(mut setting) = setting("refused") else { return };
    let path = setting.library("libssl.so.3");
    let plan = planner(&setting.mark, 2);
    let folder = setting.folder.path().to_owned();
    let libraries = setting.start(0, |settings| {
        settings.folders = vec![folder];
        settings.plan = Arc::new(move |file| {
            let mut plan = plan(file)?;
            if let Some(point) = plan.as_mut().and_then(|plan| plan.points.last_mut()) {
                point.offset = 1 << 40;
            }
            Ok(plan)
        });
    });
    let status = libraries.status();
    let found = &status.targets[0];
    assert_eq!((found.state, found.probes, found.path.as_path()), (State::Failed, 0, path.as_path()));
    assert!(found.error.as_ref().unwrap().contains("tls_call for test"), "{found:?}");
}

#[test]
fn a_planner_that_panics_and_one_that_errs_end_nothing() {
    let Some(mut setting) = setting("panic") else { return };
    for name in ["libssl.so.1", "libssl.so.2", "libssl.so.3"] {
        setting.library(name);
    }
    let plan = planner(&setting.mark, 1);
    let folder = setting.folder.path().to_owned();
    let libraries = setting.start(0, |settings| {
        settings.folders = vec![folder];
        settings.plan = Arc::new(move |file| {
            let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default();
            match path.extension().and_then(|end| end.to_str()) {
                Some("1") => panic!("a test's panic"),
                Some("2") => Err(wrong("a test's error")),
                _ => plan(file),
            }
        });
    });
    assert_eq!(attached(&libraries.status()).len(), 1);
}

#[test]
fn no_more_targets_than_the_limit_are_probed() {
    let Some(mut setting) = setting("limit") else { return };
    for number in 0..5 {
        setting.library(&format!("libssl.so.{number}"));
    }
    let folder = setting.folder.path().to_owned();
    let libraries = setting.start(1, |settings| {
        settings.folders = vec![folder];
        settings.limit = 3;
    });
    let status = libraries.status();
    assert_eq!(attached(&status).len(), 3);
    assert!(status.notes.iter().any(|note| note.starts_with("3 TLS libraries")), "{:?}", status.notes);
}

#[test]
fn three_containers_of_one_image_have_one_target_and_a_changed_file_its_own() {
    let Some(mut setting) = setting_in("containers", Path::new(APART)) else { return };
    let image = setting.path("image");
    let path = setting.library("image/opt/private/libwhatever.so");
    let inside = Path::new("/").join(path.strip_prefix(&image).unwrap());
    let base = setting.folder.path().to_owned();
    let libraries = setting.start(1, |settings| settings.let_go_every = Duration::from_millis(100));
    let mut loaders = Vec::new();
    for name in ["a", "b", "c"] {
        let Some(mut loader) = Loader::start_in(Some(Container::new(&base, &image, name))) else { return };
        loader.load(&inside);
        loaders.push(loader);
    }
    let status = wait(&libraries, "the image's file is found", |status| !attached(status).is_empty());
    let found = attached(&status)[0];
    assert_eq!((found.path.as_path(), found.real.as_deref(), found.note.as_deref()), (&*inside, Some(&*path), None));
    // A container that has changed its copy has a file of its own.
    let changed = Container::new(&base, &image, "d");
    let own = setting.library("d/upper/opt/private/libwhatever.so");
    let mut loader = Loader::start_in(Some(changed)).unwrap();
    loader.load(&inside);
    let status = wait(&libraries, "the changed file is found", |status| attached(status).len() >= 2);
    let mut real: Vec<_> = attached(&status).iter().map(|found| found.real.clone().unwrap()).collect();
    real.sort();
    assert_eq!(real, [own, path], "{status:#?}");
    // The last user of the image's file keeps its probes; without any, they go. A file that is deleted but still
    // mapped has all processes read again and again.
    std::fs::remove_file(Path::new(&format!("/proc/{}/root", loader.0.id())).join("opt/private/libwhatever.so"))
        .unwrap();
    loaders.truncate(1);
    let scans = libraries.status().scans;
    let status = wait(&libraries, "scans go on", |status| status.scans >= scans + 2 || status.let_go > 0);
    assert_eq!(attached(&status).len(), 2, "{status:#?}");
    drop(loaders);
    let status = wait(&libraries, "the image's file is let go", |status| status.let_go > 0);
    assert_eq!(attached(&status).len(), 1, "{status:#?}");
}

/// Where layers cannot be reached, the overlay's own file is probed: still one target for one inode.
#[test]
fn an_overlay_that_cannot_be_seen_through_makes_no_second_target() {
    let Some(mut setting) = setting_in("hidden", Path::new(APART)) else { return };
    let image = setting.path("image");
    let path = setting.library("image/opt/private/libwhatever.so");
    let inside = Path::new("/opt/private/libwhatever.so");
    let shared = Shared::default();
    let mut registry =
        Registry::new(planner(&setting.mark, 1), std::mem::take(&mut setting.programs), 10, shared.clone()).unwrap();
    let mut see = |path: &Path, pid: Option<u32>| {
        let root = Root::open(&pid.map_or("/".into(), |pid| PathBuf::from(format!("/proc/{pid}/root")))).unwrap();
        let place = root.place(path).unwrap();
        let sight = Sight { pid, root: root.id(), path, name: &|| "a root".into(), hosts: &Vec::new };
        registry.see(place, &sight, None);
        shared.get()
    };
    let base = setting.folder.path();
    let Some(first) = Loader::start_in(Some(Container::new(base, &image, "a"))) else { return };
    let second = Loader::start_in(Some(Container::new(base, &image, "b"))).unwrap();
    let status = see(inside, Some(first.0.id()));
    assert_eq!(attached(&status).len(), 1);
    assert!(status.targets[0].note.as_ref().unwrap().contains("can be reached from here"), "{status:#?}");
    assert_eq!(see(inside, Some(second.0.id())).targets.len(), 1, "another container");
    assert_eq!(see(&path, None).targets.len(), 1, "the layer itself");
    // A file that is really another has its own.
    let other = setting.path("other");
    std::fs::copy(&path, &other).unwrap();
    assert_eq!(see(&other, None).targets.len(), 2);
}

#[test]
fn folders_of_a_new_container_are_read_and_watched() {
    let Some(mut setting) = setting_in("container folders", Path::new(APART)) else { return };
    let image = setting.path("image");
    let path = setting.library("image/usr/local/lib/libssl.so.3");
    let base = setting.folder.path().to_owned();
    let libraries = setting.start(1, |_| {});
    let Some(loader) = Loader::start_in(Some(Container::new(&base, &image, "a"))) else { return };
    let status = wait(&libraries, "its folder is read", |status| !attached(status).is_empty());
    let found = attached(&status)[0];
    assert_eq!(found.path, Path::new("/usr/local/lib/libssl.so.3"));
    assert_eq!(found.real.as_deref(), Some(&*path));
    assert_eq!(found.root, format!("root of process {}", loader.0.id()));
    // An upgrade inside of it, which writes to its upper layer.
    let lib = PathBuf::from(format!("/proc/{}/root/usr/local/lib", loader.0.id()));
    std::fs::copy(&path, lib.join("new")).unwrap();
    std::fs::rename(lib.join("new"), lib.join("libssl.so.3")).unwrap();
    let status = wait(&libraries, "the new file is probed", |status| attached(status).len() == 2);
    let upper = base.join("a/upper/usr/local/lib/libssl.so.3");
    assert!(attached(&status).iter().any(|found| found.real.as_ref() == Some(&upper)), "{status:#?}");
}

/// What it costs: `cargo test --release -p agent --lib -- --ignored --nocapture what_discovery_costs`. Forks
/// `PROCESSES` (10,000) times from a python with some forty libraries.
#[test]
#[ignore = "a measurement"]
fn what_discovery_costs() {
    let memory = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        status
            .lines()
            .filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let count = std::env::var("PROCESSES").unwrap_or_else(|_| "10000".into());
    let script = "import os, sys, signal, ssl, ctypes, json, asyncio, sqlite3, decimal, lzma, bz2, curses\n\
        children = []\n\
        for _ in range(int(sys.argv[1])):\n    \
            pid = os.fork()\n    \
            if pid == 0: signal.pause()\n    \
            children.append(pid)\n\
        print('ready', flush=True)\nsys.stdin.read()\n\
        for pid in children: os.kill(pid, signal.SIGKILL)\n\
        for pid in children: os.waitpid(pid, 0)";
    let mut command = Command::new("/usr/bin/python3");
    let mut python = command.args(["-c", script, &count]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = [0; 6];
    python.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    let lines = std::fs::read_to_string(format!("/proc/{}/maps", python.id())).unwrap().lines().count();
    println!("{count} processes of {lines} mappings each; before: {}", memory());
    let program = || uprobe::nothing().unwrap();
    let all = [Program::Call, Program::Result, Program::Mark, Program::Descriptor, Program::Free];
    let programs = all.into_iter().map(|name| (name, program())).collect();
    let options = Options { return_probes: true };
    let spent = Arc::new(std::sync::Mutex::new((0, Duration::ZERO)));
    let counted = Arc::clone(&spent);
    let plan: Planner = Arc::new(move |file| {
        let begun = Instant::now();
        let plan = plan(file, options);
        let mut spent = counted.lock().unwrap();
        *spent = (spent.0 + 1, spent.1 + begun.elapsed());
        plan
    });
    let begun = Instant::now();
    let libraries = Libraries::start(programs, Settings::new(plan));
    println!("start returned after {:?}: {}", begun.elapsed(), memory());
    for found in libraries.status().targets {
        println!("{} {} {:?} {} probes", found.path.display(), found.version, found.state, found.probes);
    }
    let status = wait(&libraries, "a scan", |status| status.scans > 0);
    println!("scan: {:?}; {} files inspected: {}", status.last_scan, status.inspected, memory());
    println!("planning, files and time: {:?}", spent.lock().unwrap());
    for found in &status.targets {
        println!(
            "{} {} {:?} {} probes\n{}",
            found.path.display(),
            found.version,
            found.state,
            found.probes,
            found.plan
        );
    }
    let begun = Instant::now();
    if let Ok(mut node) = Command::new("node").args(["-e", "setTimeout(() => {}, 3000)"]).spawn() {
        let is_node = |found: &Found| found.path.ends_with("node");
        wait(&libraries, "node", |status| status.targets.iter().any(is_node));
        println!("node was probed {:?} after its start", begun.elapsed());
        node.kill().unwrap();
        node.wait().unwrap();
    }
    let begun = Instant::now();
    libraries.stop();
    println!("stop: {:?}", begun.elapsed());
    drop(python.stdin.take());
    python.wait().unwrap();
}

/// What it costs others and us that programs are started: `cargo test --release -p agent --lib -- --ignored
/// --nocapture what_mapping_records_cost`.
#[test]
#[ignore = "a measurement"]
fn what_mapping_records_cost() {
    const STARTS: u32 = 2000;
    let start = || {
        let begun = Instant::now();
        for _ in 0..STARTS {
            assert!(Command::new("/bin/true").status().unwrap().success());
        }
        begun.elapsed() / STARTS
    };
    let ours = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let thread = tasks
            .map(|task| task.path())
            .find(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "libraries\n"));
        // Nanoseconds on a CPU: the first field.
        let spent = std::fs::read_to_string(thread.unwrap().join("schedstat")).unwrap();
        Duration::from_nanos(spent.split(' ').next().unwrap().parse().unwrap())
    };
    for _ in 0..3 {
        let without = start();
        let libraries = Libraries::start(HashMap::new(), Settings::new(planner("nothing has this", 0)));
        wait(&libraries, "the scan is done", |status| status.scans == 1);
        let before = ours();
        let with = start();
        println!(
            "a start of /bin/true: {without:?} without, {with:?} with; ours {:?} each",
            ours().saturating_sub(before) / STARTS
        );
        libraries.stop();
    }
}
