# flake.lock against flake.nix: throws at the first pin that is incomplete or of another place; gives the pins.
let
  inherit (builtins)
    attrNames
    concatStringsSep
    elemAt
    fromJSON
    isInt
    length
    map
    match
    readFile
    split
    substring
    ;
  inputs = (import ../flake.nix).inputs;
  lock = fromJSON (readFile ../flake.lock);
  check = ok: what: if ok then true else throw "flake.lock: ${what}";

  # github:OWNER/REPO or github:OWNER/REPO/BRANCH, as Nix writes it into the lock file.
  original =
    url:
    let
      parts = match "github:([^/]+)/([^/?]+)(/([^?]+))?" url;
      branch = elemAt parts 3;
    in
    assert check (parts != null) "${url} is no github: address, which this check knows alone";
    {
      type = "github";
      owner = elemAt parts 0;
      repo = elemAt parts 1;
    }
    // (if branch == null then { } else { ref = branch; });

  pin =
    name:
    let
      node = lock.nodes.${lock.nodes.root.inputs.${name}};
      is = pattern: value: builtins.isString value && match pattern value != null;
      want = original inputs.${name}.url;
      inherit (node) locked;
    in
    assert check (node.original == want) "${name} is locked for another address than flake.nix names";
    assert check (locked.type == "github") "${name} has no type github";
    assert check (locked.owner == want.owner && locked.repo == want.repo) "${name} is locked to another repository";
    assert check (is "[0-9a-f]{40}" locked.rev) "${name} has no whole revision";
    assert check (is "sha256-[A-Za-z0-9+/]{43}=" locked.narHash) "${name} has no sha256 of its tree";
    # Seconds since 1970, in this century's first half.
    assert check (isInt locked.lastModified && locked.lastModified > 1600000000 && locked.lastModified < 2500000000)
      "${name} has no time";
    "${name} ${substring 0 7 locked.rev}";

  # As Nix writes it: sorted names, two spaces, a line feed at the end. Sorted is seen by printing it again.
  squeezed = concatStringsSep "" (builtins.filter builtins.isString (split "[ \n]+" (readFile ../flake.lock)));
in
assert check (lock.version == 7) "version ${toString lock.version}, not 7";
assert check (squeezed == builtins.toJSON lock) "names are not in Nix's order";
assert check (attrNames lock.nodes.root.inputs == attrNames inputs) "other inputs than flake.nix has";
assert check (length (attrNames lock.nodes) == 1 + length (attrNames inputs)) "a node that no input leads to";
concatStringsSep ", " (map pin (attrNames inputs))
