//! Types written by hand and read back, the running kernel's own, and bytes that are none.

use super::*;
use proptest::prelude::*;

/// Writes BTF by hand: names get their offsets, types their numbers in order from 1.
#[derive(Default)]
struct Image {
    names: Vec<u8>,
    types: Vec<u8>,
}

impl Image {
    fn name(&mut self, name: &str) -> u32 {
        if self.names.is_empty() {
            self.names.push(0);
        }
        if name.is_empty() {
            return 0;
        }
        let at = self.names.len() as u32;
        self.names.extend_from_slice(name.as_bytes());
        self.names.push(0);
        at
    }

    fn ty(&mut self, name: &str, kind: u32, flag: bool, size_or_type: u32, tail: &[[u32; 3]]) {
        let name = self.name(name);
        let len = if matches!(kind, kind::STRUCT | kind::UNION) { tail.len() as u32 } else { 0 };
        for word in [name, u32::from(flag) << 31 | kind << 24 | len, size_or_type] {
            self.types.extend_from_slice(&word.to_ne_bytes());
        }
        for word in tail.iter().flatten() {
            self.types.extend_from_slice(&word.to_ne_bytes());
        }
    }

    fn int(&mut self, name: &str, size: u32, bits: u32) {
        self.ty(name, kind::INT, false, size, &[]);
        self.types.extend_from_slice(&bits.to_ne_bytes());
    }

    fn bytes(mut self) -> Vec<u8> {
        self.name("");
        let (types, names) = (self.types.len() as u32, self.names.len() as u32);
        let mut out = Vec::new();
        for word in [0x0001_eb9f, 24, 0, types, types, names] {
            out.extend_from_slice(&u32::to_ne_bytes(word));
        }
        out.extend(self.types);
        out.extend(self.names);
        out
    }
}

/// `struct outer { int a; struct { union { int b; thing_t c; }; int d[3]; }; unsigned e:3; int f[]; };`
fn sample() -> Vec<u8> {
    let mut image = Image::default();
    let [first, number, thing, array] = ["a", "b", "c", "d"].map(|name| image.name(name));
    let [bits, flexible] = ["e", "f"].map(|name| image.name(name));
    let [x, y] = ["x", "y"].map(|name| image.name(name));
    image.int("int", 4, 32); // 1
    image.ty("thing", kind::STRUCT, false, 8, &[[x, 1, 0], [y, 1, 32]]); // 2
    image.ty("thing_t", kind::TYPEDEF, false, 2, &[]); // 3
    image.ty("", kind::CONST, false, 3, &[]); // 4
    image.ty("", kind::UNION, false, 8, &[[number, 1, 0], [thing, 4, 0]]); // 5
    image.ty("", kind::ARRAY, false, 0, &[[1, 1, 3]]); // 6
    image.ty("", kind::STRUCT, false, 20, &[[0, 5, 0], [array, 6, 64]]); // 7
    image.ty("", kind::ARRAY, false, 0, &[[1, 1, 0]]); // 8
    image.ty(
        "outer",
        kind::STRUCT,
        true,
        28,
        &[[first, 1, 0], [0, 7, 32], [bits, 1, (3 << 24) | (8 * 24)], [flexible, 8, 224]], // 9
    );
    image.ty("outer", kind::STRUCT, false, 4, &[[x, 1, 0]]); // 10: another file's structure of that name
    image.bytes()
}

#[test]
fn finds_members_through_anonymous_ones_typedefs_and_modifiers() {
    let btf = Btf::parse(sample()).unwrap();
    assert_eq!(btf.offset("outer.a"), Ok(0));
    assert_eq!(btf.offset("outer.b"), Ok(4));
    assert_eq!(btf.offset("outer.c.y"), Ok(8));
    assert_eq!(btf.member("outer.d"), Ok(Member { offset: 12, size: Some(12) }));
    assert_eq!(btf.member("outer.f"), Ok(Member { offset: 28, size: None }));
    assert_eq!(btf.size("outer"), Ok(28));
    assert_eq!(btf.size("outer.c"), Ok(8));
}

#[test]
fn says_why_a_path_has_no_offset() {
    let btf = Btf::parse(sample()).unwrap();
    let why = |path: &str| btf.offset(path).unwrap_err().why;
    assert_eq!(why("absent.a"), Why::NoStruct);
    assert_eq!(why(""), Why::NoStruct);
    assert_eq!(why("outer.zz"), Why::NoMember("zz".into()));
    assert_eq!(why("thing.x.deep"), Why::NotStruct("deep".into()));
    assert_eq!(btf.size("outer.f").unwrap_err().why, Why::NoSize);
    let message = btf.offset("outer.c.zz").unwrap_err().to_string();
    assert!(message.contains("`outer.c.zz`"), "{message}");
}

#[test]
fn a_second_structure_of_the_same_name_is_tried() {
    let btf = Btf::parse(sample()).unwrap();
    assert_eq!(btf.offset("outer.x"), Ok(0));
}

#[test]
fn a_bit_field_has_no_offset_in_both_encodings() {
    let mut image = Image::default();
    let [old, new] = ["old", "new"].map(|name| image.name(name));
    image.int("int", 4, 3);
    image.int("int", 4, 32);
    image.ty("s", kind::STRUCT, false, 4, &[[old, 1, 0]]);
    image.ty("t", kind::STRUCT, true, 4, &[[new, 2, 1 << 24]]);
    let bits = Btf::parse(image.bytes()).unwrap();
    assert_eq!(bits.offset("s.old").unwrap_err().why, Why::BitField);
    assert_eq!(bits.offset("t.new").unwrap_err().why, Why::BitField);
    assert_eq!(Btf::parse(sample()).unwrap().offset("outer.e").unwrap_err().why, Why::BitField);
}

#[test]
fn structures_that_contain_themselves_end() {
    let mut image = Image::default();
    // 1 is a structure of many anonymous members of its own type; 2 a typedef of itself.
    let members = vec![[0, 1, 0]; 1000];
    let looped = image.name("m");
    image.ty("s", kind::STRUCT, false, 4, &members);
    image.ty("t", kind::TYPEDEF, false, 2, &[]);
    image.ty("u", kind::STRUCT, false, 4, &[[looped, 2, 0]]);
    let btf = Btf::parse(image.bytes()).unwrap();
    assert_eq!(btf.offset("s.x").unwrap_err().why, Why::Broken);
    assert_eq!(btf.offset("u.m.x").unwrap_err().why, Why::Broken);
}

#[test]
fn every_prefix_is_refused_or_harmless() {
    let whole = sample();
    for len in 0..whole.len() {
        assert!(Btf::parse(whole[..len].to_vec()).is_err(), "accepted the first {len} bytes");
    }
}

#[test]
fn the_other_byte_order_is_named() {
    let mut bytes = sample();
    bytes.swap(0, 1);
    assert!(Btf::parse(bytes).unwrap_err().to_string().contains("byte order"));
}

proptest! {
    #[test]
    fn changed_bytes_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let mut bytes = sample();
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(btf) = Btf::parse(bytes) {
            for path in ["outer.b", "outer.c.y", "outer.d", "outer.f", "thing.x", "outer.zz"] {
                let _ = btf.member(path);
            }
        }
    }
}

#[test]
fn the_running_kernel_has_the_members_that_the_programs_read() {
    if !Path::new(VMLINUX).exists() {
        eprintln!("skipped: this kernel shows no {VMLINUX}");
        return;
    }
    let btf = Btf::load().unwrap();
    // Places that do not move between kernels: sock_common begins struct sock, with the address pair first.
    assert_eq!(btf.offset("sock.__sk_common"), Ok(0));
    assert_eq!(btf.offset("sock.__sk_common.skc_daddr"), Ok(0));
    assert_eq!(btf.member("sock_common.skc_rcv_saddr"), Ok(Member { offset: 4, size: Some(4) }));
    assert_eq!(btf.size("sock.__sk_common.skc_dport"), Ok(2));
    assert_eq!(btf.size("sock.__sk_common.skc_v6_daddr"), Ok(16));
    assert_eq!(btf.size("task_struct.comm"), Ok(16));
    assert_eq!(btf.size("task_struct.group_leader"), Ok(size_of::<usize>() as u32));
    assert_eq!(btf.size("task_struct.start_boottime"), Ok(8));
    for path in [
        "sock.__sk_common.skc_state",
        "sock.__sk_common.skc_family",
        "sock.__sk_common.skc_num",
        "sock.__sk_common.skc_net",
        "sock.sk_lock.owned",
        "tcp_sock.rcv_nxt",
        "tcp_sock.snd_nxt",
        "task_struct.tgid",
        "task_struct.real_parent",
        "task_struct.cred",
        "task_struct.mm",
        "mm_struct.arg_start",
        "net.ns.inum",
        "linux_binprm.filename",
    ] {
        assert!(btf.offset(path).is_ok(), "{:?}", btf.offset(path));
    }
    assert_eq!(btf.offset("sock.sk_no_such_member").unwrap_err().why, Why::NoMember("sk_no_such_member".into()));
}
