//! Brings Garage (layout, buckets, keys) or any S3 bucket to what a file declares.
//!
//! Empty until the object store forwarder exists; `tapstack up` keeps everything in its archive.
