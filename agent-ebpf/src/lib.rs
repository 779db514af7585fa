//! Records shared by the kernel side and user space.
#![no_std]
