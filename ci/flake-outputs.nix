# The flake's outputs with a stand-in for nixpkgs: what is asked of nixpkgs becomes a record of the question. So
# every name and every path of ours is evaluated, and nothing of nixpkgs is.
let
  inherit (builtins) attrNames concatStringsSep mapAttrs pathExists;

  lib = {
    genAttrs = names: value: builtins.listToAttrs (map (name: { inherit name; value = value name; }) names);
    remove = unwanted: builtins.filter (item: item != unwanted);
    importTOML = file: builtins.fromTOML (builtins.readFile file);
    getExe = package: "${package.name}/bin/${package.meta.mainProgram or package.name}";
    licenses = mapAttrs (name: _: name) { asl20 = 0; mit = 0; gpl2Only = 0; };
    fileset = {
      # A path that is not there would only fail in a build.
      unions = map (path: if pathExists path then path else throw "${toString path} is not there");
      toSource = { root, fileset }: builtins.seq (builtins.length fileset) (builtins.deepSeq fileset root);
    };
  };
  package = name: { inherit name; };
  pkgs = {
    inherit lib;
    rustPlatform.buildRustPackage =
      args:
      assert pathExists args.cargoLock.lockFile;
      assert pathExists (args.src + "/Cargo.toml");
      args // { name = "${args.pname}-${args.version}"; };
    writeShellApplication = { name, text }: builtins.seq text { inherit name text; };
    mkShell = args: { name = "shell"; } // args;
  }
  // lib.genAttrs [
    "bpf-linker"
    "clippy"
    "nixfmt-tree"
    "rust-analyzer"
    "rustfmt"
    "versionCheckHook"
  ] package;

  outputs = (import ../flake.nix).outputs {
    self = { };
    nixpkgs = {
      inherit lib;
      legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (_: pkgs);
    };
    process-compose-flake = { };
  };
  overlaid = outputs.overlays.default pkgs pkgs;

  # Looks at all that is not a function.
  forced = builtins.deepSeq (builtins.removeAttrs outputs [ "overlays" ]) (builtins.deepSeq overlaid.tapstack outputs);
in
assert forced.packages.x86_64-linux.default.version == (lib.importTOML ../Cargo.toml).workspace.package.version;
assert forced.apps.x86_64-linux.up.type == "app";
concatStringsSep " " (attrNames forced)
