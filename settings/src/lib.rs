//! Strict YAML for `qtap.yaml`, the gateway and provisioning: every mistake with its place.
//!
//! Empty until `tapstack agent --config` takes a file; `tapstack up` needs none.
