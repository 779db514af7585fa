# Our packages over any nixpkgs: the flake's packages, its overlay and later the modules all call this.
{ pkgs, lib }:
let
  manifest = lib.importTOML ../Cargo.toml;

  # What cargo reads, and nothing else: a change in the docs or the scripts builds nothing anew.
  source = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions (
      [
        ../Cargo.toml
        ../Cargo.lock
        ../src
      ]
      ++ map (member: ../. + "/${member}") (lib.remove "." manifest.workspace.members)
    );
  };

  tapstack = pkgs.rustPlatform.buildRustPackage {
    pname = "tapstack";
    inherit (manifest.workspace.package) version;
    src = source;
    cargoLock.lockFile = ../Cargo.lock;

    # The kernel side as committed under agent/bpf; CI rebuilds that from its source and compares.
    env.TAPSTACK_BPF = "committed";

    # The tests of the workspace look at the kernel and the processes that they run on, which a build sandbox
    # hides; CI runs them. Here: the program starts and is this version.
    doCheck = false;
    doInstallCheck = true;
    nativeInstallCheckInputs = [ pkgs.versionCheckHook ];

    meta = {
      inherit (manifest.package) description;
      license = with lib.licenses; [
        asl20
        mit
        # The kernel side, which the program carries: MIT or GPL-2.0.
        gpl2Only
      ];
      mainProgram = "tapstack";
      platforms = [
        "x86_64-linux"
        "aarch64-linux"
      ];
    };
  };
in
{
  inherit tapstack;

  up = pkgs.writeShellApplication {
    name = "tapstack-up";
    text = ''exec ${lib.getExe tapstack} up "$@"'';
  };

  shell = pkgs.mkShell {
    inputsFrom = [ tapstack ];
    packages = [
      pkgs.bpf-linker
      pkgs.clippy
      pkgs.rust-analyzer
      pkgs.rustfmt
    ];
  };
}
