//! Puts the eBPF object into `OUT_DIR/agent-ebpf.o`.
//!
//! How, first match wins:
//! 1. `TAPSTACK_BPF_OBJECT=FILE`: that object.
//! 2. `TAPSTACK_BPF=committed`: the object committed in `agent/bpf/`.
//! 3. `bpf-linker` is on PATH and there is a compiler with `core` for BPF: built from source. Compilers
//!    are tried in this order: `TAPSTACK_BPF_RUSTC`, the one of this build with its library source
//!    (`rust-src`), `/usr/bin/rustc` (Debian: rustc-web and libstd-rust-web-dev-bpf; see
//!    `ci/bpf-toolchain.sh`), the one of this build with a prebuilt core (Nix).
//! 4. The committed object.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

const TARGET: &str = "bpfel-unknown-none";

/// How a compiler gets `core` for BPF.
enum Core {
    Prebuilt,
    Source,
}

fn output(command: &mut Command) -> Option<String> {
    let o = command.output().ok()?;
    o.status.success().then(|| String::from_utf8_lossy(&o.stdout).trim().to_owned())
}

fn core_of(rustc: &Path) -> Option<Core> {
    let lib = Path::new(&output(Command::new(rustc).args(["--print", "sysroot"]))?).join("lib/rustlib");
    let prebuilt = fs::read_dir(lib.join(TARGET).join("lib"))
        .is_ok_and(|d| d.flatten().any(|f| f.file_name().to_string_lossy().starts_with("libcore")));
    if prebuilt {
        return Some(Core::Prebuilt);
    }
    lib.join("src/rust/library/core/src/lib.rs").exists().then_some(Core::Source)
}

fn compiler() -> Option<(PathBuf, Core)> {
    let mut candidates: Vec<PathBuf> = Vec::new();
    if let Some(r) = env::var_os("TAPSTACK_BPF_RUSTC") {
        candidates.push(r.into());
    } else {
        candidates.push(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()).into());
        candidates.push("/usr/bin/rustc".into());
    }
    candidates.into_iter().find_map(|r| core_of(&r).map(|c| (r, c)))
}

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("agent-ebpf.o");
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let workspace = here.parent().expect("the crate lies in the workspace").to_owned();
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    for v in ["TAPSTACK_BPF_OBJECT", "TAPSTACK_BPF", "TAPSTACK_BPF_RUSTC", "PATH"] {
        println!("cargo:rerun-if-env-changed={v}");
    }
    for p in ["agent-ebpf/src", "agent-ebpf/Cargo.toml", "agent/bpf", "agent/build.rs"] {
        println!("cargo:rerun-if-changed={}", workspace.join(p).display());
    }
    if let Some(o) = env::var_os("TAPSTACK_BPF_OBJECT") {
        fs::copy(&o, &out).unwrap_or_else(|e| panic!("TAPSTACK_BPF_OBJECT={}: {e}", o.display()));
        return;
    }
    let committed = here.join(format!("bpf/agent-ebpf-{arch}.o"));
    let use_committed = env::var_os("TAPSTACK_BPF").is_some_and(|v| v == "committed");
    let linker = output(Command::new("bpf-linker").arg("--version"));
    let found = if use_committed || linker.is_none() { None } else { compiler() };
    let Some((rustc, core)) = found else {
        fs::copy(&committed, &out).unwrap_or_else(|e| {
            panic!(
                "{}: {e}. There is no committed eBPF object for {arch}; install the toolchain with \
                 ci/bpf-toolchain.sh and put what it prints on PATH",
                committed.display()
            )
        });
        return;
    };
    let home = env::var("CARGO_HOME").unwrap_or_else(|_| format!("{}/.cargo", env::var("HOME").unwrap_or_default()));
    let mut flags = vec![
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // No path of this machine in the object: the same source gives the same bytes anywhere.
        format!("--remap-path-prefix={}=src", workspace.display()),
    ];
    if let Ok(d) = fs::read_dir(Path::new(&home).join("registry/src")) {
        flags.extend(d.flatten().map(|i| format!("--remap-path-prefix={}=dep", i.path().display())));
    }
    let target_dir = out.with_file_name("bpf-target");
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    cargo
        .current_dir(&workspace)
        .args(["build", "--package", "agent-ebpf", "--bin", "agent-ebpf", "--release", "--target", TARGET])
        .arg("--target-dir")
        .arg(&target_dir)
        .env("RUSTC", &rustc)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        // aya-ebpf needs one unstable feature on the BPF architecture.
        .env("RUSTC_BOOTSTRAP", if matches!(core, Core::Source) { "1" } else { "aya_ebpf" })
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTUP_TOOLCHAIN");
    if matches!(core, Core::Source) {
        cargo.args(["-Z", "build-std=core"]);
    }
    let status = cargo.status().expect("cargo starts");
    assert!(status.success(), "building the eBPF programs failed; TAPSTACK_BPF=committed takes the committed object");
    fs::copy(target_dir.join(TARGET).join("release/agent-ebpf"), &out).expect("the built object is there");
}
