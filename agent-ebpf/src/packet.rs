//! Where a segment's payload lies, and its sequence number.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};

/// What the headers say of a segment with payload.
#[derive(Clone, Copy)]
pub struct Segment {
    /// Sequence number of the first byte of payload.
    pub seq: u32,
    /// Offset of the payload in the packet.
    pub at: u32,
    /// Bytes of payload.
    pub len: u32,
    /// Length of the IP header, extension headers included.
    pub ip_len: u32,
    /// 4 or 6.
    pub version: u32,
}

const TCP: u8 = 6;
/// IPv6 extension headers of the length-in-eight-octets form (RFC 8200 section 4.3, 4.4, 4.6): hop-by-hop
/// (also that of jumbograms on loopback), routing, destination options.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;

/// The segment of a packet that begins with its IP header; `None` when it is not TCP or has no payload.
///
/// # Safety
/// `skb` is the context of a cgroup_skb program.
#[inline(always)]
pub unsafe fn segment(skb: *mut __sk_buff) -> Option<Segment> {
    unsafe {
        let data = (*skb).data as usize;
        let end = (*skb).data_end as usize;
        let p = data as *const u8;
        let (ip_len, version, seq, words, flags);
        if data + 40 <= end && *p == 0x45 {
            // IPv4 without options, TCP header in the linear part: nearly always.
            if *p.add(9) != TCP {
                return None;
            }
            (ip_len, version) = (20u32, 4u32);
            let t = p.add(20);
            seq = u32::from_be(*t.add(4).cast::<u32>());
            words = *t.add(12) >> 4;
            flags = *t.add(13);
        } else if data + 60 <= end && *p >> 4 == 6 && *p.add(6) == TCP {
            (ip_len, version) = (40, 6);
            let t = p.add(40);
            seq = u32::from_be(*t.add(4).cast::<u32>());
            words = *t.add(12) >> 4;
            flags = *t.add(13);
        } else {
            // Options, extension headers, or headers that are not in the linear part.
            let mut ip = [0u8; 20];
            if bpf_skb_load_bytes(skb.cast(), 0, ip.as_mut_ptr().cast(), 20) != 0 {
                return None;
            }
            version = (ip[0] >> 4) as u32;
            let mut len;
            let mut next;
            if version == 4 {
                len = (ip[0] & 15) as u32 * 4;
                next = ip[9];
            } else {
                len = 40;
                next = ip[6];
                let mut i = 0;
                while i < 4 {
                    if next != HOP_BY_HOP && next != ROUTING && next != DESTINATION {
                        break;
                    }
                    let mut e = [0u8; 2];
                    if bpf_skb_load_bytes(skb.cast(), len, e.as_mut_ptr().cast(), 2) != 0 {
                        return None;
                    }
                    next = e[0];
                    len += (e[1] as u32 + 1) * 8;
                    i += 1;
                }
            }
            if next != TCP {
                return None;
            }
            let mut t = [0u32; 4];
            if bpf_skb_load_bytes(skb.cast(), len, t.as_mut_ptr().cast(), 16) != 0 {
                return None;
            }
            ip_len = len;
            seq = u32::from_be(t[1]);
            words = t[3] as u8 >> 4;
            flags = (t[3] >> 8) as u8;
        }
        let at = ip_len + words as u32 * 4;
        let total = (*skb).len;
        if total <= at {
            return None;
        }
        // A SYN takes one sequence number before its data (TCP Fast Open, RFC 7413).
        let seq = if flags & 2 != 0 { seq.wrapping_add(1) } else { seq };
        Some(Segment { seq, at, len: total - at, ip_len, version })
    }
}
