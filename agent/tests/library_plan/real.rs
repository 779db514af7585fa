//! The libraries of this machine, and those that `ci/libssl.sh` has fetched. Where one is missing the test says so.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use agent::library::plan_fuzz::check;
use agent::library::{Options, Plan, Point, Program, plan};
use agent_ebpf::role::{COUNT, INT, OPERATION, OUT, READ, WRITE};

const WITH: Options = Options { return_probes: true };
const WITHOUT: Options = Options { return_probes: false };

/// The plan for a file, checked; `None` when the file is not there.
fn planned(path: &Path, options: Options) -> Option<Plan> {
    let Ok(file) = File::open(path) else {
        eprintln!("skipped: no {}", path.display());
        return None;
    };
    let plan = plan(&file, options).expect("can be read").expect("is a TLS library");
    check(&plan, file.metadata().expect("its size").len(), options);
    Some(plan)
}

fn of_this_machine() -> PathBuf {
    PathBuf::from("/usr/lib/x86_64-linux-gnu/libssl.so.3")
}

/// libssl of a Debian release, fetched by `ci/libssl.sh`.
fn of_release(release: &str, name: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache"))).unwrap_or_default();
    cache.join("tapstack/libssl").join(release).join("usr/lib/x86_64-linux-gnu").join(name)
}

fn libraries() -> [PathBuf; 4] {
    let new = |release| of_release(release, "libssl.so.3");
    [of_this_machine(), of_release("bullseye", "libssl.so.1.1"), new("trixie"), new("sid")]
}

/// A push, nop, jump or call that the kernel emulates.
fn cheap(path: &Path, point: &Point) -> bool {
    let mut code = [0; 2];
    File::open(path).and_then(|f| f.read_exact_at(&mut code, point.offset)).expect("the file is longer");
    matches!(code, [0x50..=0x57 | 0x90 | 0xeb | 0xe8 | 0xe9 | 0x70..=0x7f, _] | [0x41, 0x50..=0x57] | [0x0f, 0x80..=0x8f])
}

fn with(plan: &Plan, program: Program) -> impl Iterator<Item = &Point> {
    plan.points.iter().filter(move |p| p.program == program)
}

#[test]
fn libssl_is_probed_inside_and_cheaply() {
    for path in libraries() {
        let Some(plan) = planned(&path, WITHOUT) else { continue };
        let calls: Vec<_> = with(&plan, Program::Call).collect();
        assert_eq!(calls.len(), 2, "one place for reading, one for writing:\n{plan}");
        assert!(calls.iter().all(|p| p.cookie & INT == 0 && cheap(&path, p)), "{plan}");
        for symbol in ["SSL_read", "SSL_write"] {
            let mut results = with(&plan, Program::Result).filter(|p| p.symbol == symbol);
            assert!(results.all(|p| cheap(&path, p)), "{symbol}:\n{plan}");
        }
        // SSL_read, SSL_read_ex and the BIO of libssl (s_server uses it); the same for writing.
        assert_eq!(with(&plan, Program::Result).count(), 6, "{plan}");
        assert_eq!(with(&plan, Program::Free).count(), 2, "SSL_free and SSL_clear:\n{plan}");
        assert_eq!(with(&plan, Program::Descriptor).count(), 3, "{plan}");
        let marks: Vec<_> = with(&plan, Program::Mark).map(|p| p.symbol).collect();
        assert_eq!(marks, ["SSL_do_handshake"]);
        let others = plan.points.iter().filter(|p| p.cookie == 0);
        assert!(others.clone().count() == 6 && others.clone().all(|p| cheap(&path, p)), "{plan}");
    }
}

#[test]
fn place_of_the_count() {
    let outs = |path: &Path| -> Option<Vec<(u64, u64)>> {
        let plan = planned(path, WITHOUT)?;
        Some(with(&plan, Program::Call).map(|p| (p.cookie & OPERATION, p.cookie >> OUT)).collect())
    };
    if let Some(outs) = outs(&of_release("bullseye", "libssl.so.1.1")) {
        assert_eq!(outs, [(READ, 3), (WRITE, 3)]);
    }
    // Since 3.3 flags come before it when writing.
    for release in ["trixie", "sid"] {
        if let Some(outs) = outs(&of_release(release, "libssl.so.3")) {
            assert_eq!(outs, [(READ, 3), (WRITE, 4)], "{release}");
        }
    }
}

#[test]
fn behind_endbr64() {
    let path = of_release("trixie", "libssl.so.3");
    let Some(plan) = planned(&path, WITHOUT) else { return };
    let mark = with(&plan, Program::Mark).next().expect("a mark");
    let mut before = [0; 4];
    File::open(&path).and_then(|f| f.read_exact_at(&mut before, mark.offset - 4)).expect("the file is longer");
    assert_eq!(before, *b"\xf3\x0f\x1e\xfa", "built with -fcf-protection:\n{plan}");
}

#[test]
fn every_place_begins_an_instruction() {
    for path in libraries() {
        let Some(plan) = planned(&path, WITHOUT) else { continue };
        let output = Command::new("objdump").args(["-d", "--no-show-raw-insn"]).arg(&path).output();
        let Ok(output) = output else {
            eprintln!("skipped: no objdump");
            return;
        };
        // In Debian's libraries code is at the same offset in the file as in memory.
        let text = String::from_utf8_lossy(&output.stdout);
        let address = |line: &str| u64::from_str_radix(line.split_once(':')?.0.trim(), 16).ok();
        let begins: BTreeSet<u64> = text.lines().filter_map(address).collect();
        assert!(begins.len() > 10_000, "objdump of {}", path.display());
        assert!(plan.points.iter().all(|p| begins.contains(&p.offset)), "{}:\n{plan}", path.display());
    }
}

#[test]
fn node_has_it_inside() {
    let path = Path::new("/usr/bin/node");
    let Some(plan) = planned(path, WITH) else { return };
    assert!(plan.version.starts_with("OpenSSL "), "{:?}", plan.version);
    for (symbol, cookies) in [("SSL_read", (READ | COUNT, READ | INT)), ("SSL_write", (WRITE | COUNT, WRITE | INT))] {
        let result = with(&plan, Program::Result).find(|p| p.symbol == symbol).expect("a result");
        let call = with(&plan, Program::Call).find(|p| p.symbol == symbol).expect("a call");
        assert!(result.on_return && cheap(path, result), "{plan}");
        assert!(cheap(path, call), "{plan}");
        assert_eq!((result.cookie, call.cookie), cookies);
    }
    // Where return probes are not safe: at the returns.
    let Some(plan) = planned(path, WITHOUT) else { return };
    let mut code = [0];
    for point in with(&plan, Program::Result) {
        File::open(path).and_then(|f| f.read_exact_at(&mut code, point.offset)).expect("the file is longer");
        assert!(!point.on_return && code == [0xc3], "{plan}");
    }
}

#[test]
fn libraries_that_only_use_it_have_no_plan() {
    let folder = Path::new("/usr/lib/x86_64-linux-gnu");
    for name in ["libc.so.6", "libcurl.so.4", "libcrypto.so.3", "libpq.so.5"] {
        let Ok(path) = fs::canonicalize(folder.join(name)) else {
            eprintln!("skipped: no {name}");
            continue;
        };
        let file = File::open(&path).expect("can be opened");
        assert_eq!(plan(&file, WITH).expect("can be read"), None, "{name}");
    }
}
