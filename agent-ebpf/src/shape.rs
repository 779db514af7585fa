//! What the first bytes of a direction look like. Only a first judgement: user space has the last word and
//! can stop the copying of a connection.

use agent_ebpf::protocol;

/// Bytes looked at.
pub const LOOK: usize = 32;

/// `tchar` of RFC 9110 section 5.6.2 as bits of the codes 0 to 127.
const TOKEN_LOW: u64 = {
    let mut m = 0u64;
    let s = b"!#$%&'*+-.0123456789";
    let mut i = 0;
    while i < s.len() {
        m |= 1 << s[i];
        i += 1;
    }
    m
};
const TOKEN_HIGH: u64 = {
    let mut m = 0u64;
    let s = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ^_`abcdefghijklmnopqrstuvwxyz|~";
    let mut i = 0;
    while i < s.len() {
        m |= 1 << (s[i] - 64);
        i += 1;
    }
    m
};

const fn word(b: &[u8; 4]) -> u32 {
    u32::from_ne_bytes(*b)
}

/// Judges the first `n` (1 to 32) bytes of a direction; `UNKNOWN` when more are needed. A method token,
/// a space and then `/`, `*` or a scheme is HTTP; so is any target after `CONNECT`, and a status line.
#[inline(always)]
pub fn judge(b: &[u8; LOOK * 2], n: u32) -> u8 {
    let first = word(&[b[0], b[1], b[2], b[3]]);
    if n >= 4 {
        // The commonest at once, with early results: booleans that live on double the verifier's paths.
        if first == word(b"GET ") && (n < 5 || b[4] == b'/') {
            return if n < 5 { protocol::UNKNOWN } else { protocol::HTTP1 };
        }
        if first == word(b"HTTP") {
            return if n < 7 {
                protocol::UNKNOWN
            } else if b[4] == b'/' && b[5] == b'1' && b[6] == b'.' {
                protocol::HTTP1
            } else {
                protocol::OTHER
            };
        }
        if first == word(b"PRI ") {
            return if n < 8 {
                protocol::UNKNOWN
            } else if word(&[b[4], b[5], b[6], b[7]]) == word(b"* HT") {
                protocol::HTTP2
            } else {
                protocol::OTHER
            };
        }
    }
    if b[0] == 0x16 || b[0] == 0x17 {
        // TLS: a handshake record with a hello, or application data of a connection older than the agent.
        if n < 6 {
            return protocol::UNKNOWN;
        }
        let known = b[1] == 3 && b[2] <= 4 && (b[0] == 0x17 || b[5] == 1 || b[5] == 2);
        return if known { protocol::TLS } else { protocol::OTHER };
    }
    if b[0] == b'\r' {
        // Version 2 of the PROXY protocol begins with \r\n\r\n\0\r\nQUIT\n; empty lines before a request
        // (RFC 9112 section 2.2) begin alike and user space tells them apart.
        if n < 4 {
            return protocol::UNKNOWN;
        }
        return if b[1] == b'\n' { protocol::HTTP1 } else { protocol::OTHER };
    }
    let mut i = 0u32;
    while i < 24 {
        if i >= n {
            return protocol::UNKNOWN;
        }
        let c = b[i as usize];
        if c == b' ' {
            if i == 0 {
                return protocol::OTHER;
            }
            if i + 1 >= n {
                return protocol::UNKNOWN;
            }
            let t = b[i as usize + 1];
            if t == b'/' || t == b'*' {
                return protocol::HTTP1;
            }
            if i == 7 && first == word(b"CONN") {
                return protocol::HTTP1;
            }
            // http://… to a proxy; PROXY TCP4, TCP6, UNKNOWN
            if t == b'h' || (i == 5 && first == word(b"PROX") && (t == b'T' || t == b'U')) {
                return protocol::HTTP1;
            }
            return protocol::OTHER;
        }
        let bit = if c < 64 {
            TOKEN_LOW >> c
        } else if c < 128 {
            TOKEN_HIGH >> (c - 64)
        } else {
            0
        };
        if bit & 1 == 0 {
            return protocol::OTHER;
        }
        i += 1;
    }
    protocol::OTHER
}
