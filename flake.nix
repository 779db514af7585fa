{
  description = "Tapstack: captures the HTTP traffic of a Linux host in the kernel and keeps it inside your own infrastructure";

  inputs = {
    # The release's compiler may be older than the workspace's rust-version; unstable's is not.
    nixpkgs.url = "github:NixOS/nixpkgs/nixpkgs-unstable";
    process-compose-flake.url = "github:Platonic-Systems/process-compose-flake";
  };

  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
      # Those that a BPF object is committed for.
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forEachSystem =
        function:
        lib.genAttrs systems (
          system:
          let
            pkgs = nixpkgs.legacyPackages.${system};
          in
          function pkgs (import ./nixos/packages.nix { inherit pkgs lib; })
        );
    in
    {
      overlays.default = final: _previous: {
        inherit
          (import ./nixos/packages.nix {
            pkgs = final;
            inherit lib;
          })
          tapstack
          ;
      };

      packages = forEachSystem (
        _pkgs: ours: {
          default = ours.tapstack;
          inherit (ours) tapstack;
        }
      );

      # sudo nix run .#up: capture, archive and explorer in one process.
      apps = forEachSystem (
        _pkgs: ours: rec {
          default = up;
          up = {
            type = "app";
            program = lib.getExe ours.up;
            meta.description = "Captures this host's HTTP traffic and shows it in the browser";
          };
        }
      );

      checks = forEachSystem (_pkgs: ours: { package = ours.tapstack; });

      devShells = forEachSystem (_pkgs: ours: { default = ours.shell; });

      formatter = forEachSystem (pkgs: _ours: pkgs.nixfmt-tree);
    };
}
