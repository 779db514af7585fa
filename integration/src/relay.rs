//! A road between two namespaces on which packets are lost, doubled, overtaken, damaged and forged: two TUN
//! devices and a thread for each direction.
//!
//! Damage and forgeries are such that TCP must refuse them: a wrong checksum, a sequence number outside of the
//! window or wholly old, a time stamp of the past (RFC 7323 section 5). What a capture reports as
//! complete must not contain a byte of them.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::Result;

use crate::{content::random, sys};

/// What befalls packets, each as a share of 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Road {
    /// Packets that never arrive.
    pub loss: f64,
    /// Packets that the next three overtake.
    pub reorder: f64,
    /// Packets that arrive twice.
    pub double: f64,
    /// Packets with one byte changed.
    pub corrupt: f64,
    /// Data packets beside which a forged one arrives.
    pub forge: f64,
}

/// What befell packets.
#[derive(Debug, Default)]
pub struct Tally {
    /// Packets that came in.
    pub packets: AtomicU64,
    /// Lost.
    pub lost: AtomicU64,
    /// Overtaken.
    pub reordered: AtomicU64,
    /// Doubled.
    pub doubled: AtomicU64,
    /// Damaged.
    pub corrupted: AtomicU64,
    /// Forgeries added.
    pub forged: AtomicU64,
}

impl Tally {
    /// One line for the test's output.
    #[must_use]
    pub fn line(&self) -> String {
        let n = |a: &AtomicU64| a.load(Ordering::Relaxed);
        format!(
            "{} packets: {} lost, {} overtaken, {} doubled, {} damaged, {} forged",
            n(&self.packets),
            n(&self.lost),
            n(&self.reordered),
            n(&self.doubled),
            n(&self.corrupted),
            n(&self.forged)
        )
    }
}

/// A running relay; it ends when it is dropped.
#[derive(Debug)]
pub struct Relay {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// What befell packets so far.
    pub tally: Arc<Tally>,
}

impl Relay {
    /// Carries packets between two TUN devices.
    ///
    /// # Errors
    /// When a descriptor cannot be doubled.
    pub fn start(a: &File, b: &File, road: Road, seed: u64) -> Result<Relay> {
        let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Tally::default()));
        let mut threads = Vec::new();
        for (from, to, seed) in [(a, b, seed), (b, a, seed ^ 0x5555)] {
            let lane = Lane {
                from: from.try_clone()?,
                to: to.try_clone()?,
                road,
                state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
                waiting: Vec::new(),
                tally: Arc::clone(&tally),
            };
            let stop = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || lane.run(&stop)));
        }
        Ok(Relay { stop, threads, tally })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

struct Lane {
    from: File,
    to: File,
    road: Road,
    state: u64,
    /// Packets that are being overtaken, with the number of packets that still pass them.
    waiting: Vec<(u8, Vec<u8>)>,
    tally: Arc<Tally>,
}

impl Lane {
    fn chance(&mut self, share: f64) -> bool {
        (random(&mut self.state) >> 11) as f64 / (1_u64 << 53) as f64 <= share && share > 0.0
    }

    /// A packet that the device refuses (it is down when the namespace ends) is a lost packet.
    fn arrive(&mut self, packet: &[u8]) {
        let _ = self.to.write(packet);
    }

    fn run(mut self, stop: &AtomicBool) {
        let mut buffer = vec![0; 65536];
        while !stop.load(Ordering::Relaxed) {
            match sys::readable(&self.from, 10) {
                Ok(true) => {}
                Ok(false) => {
                    // Nobody overtakes any more.
                    for (_, packet) in std::mem::take(&mut self.waiting) {
                        self.arrive(&packet);
                    }
                    continue;
                }
                Err(_) => return,
            }
            let Ok(len) = self.from.read(&mut buffer) else { return };
            self.carry(&buffer[..len]);
        }
    }

    fn carry(&mut self, packet: &[u8]) {
        let count = |a: &AtomicU64| a.fetch_add(1, Ordering::Relaxed);
        let tally = Arc::clone(&self.tally);
        count(&tally.packets);
        let forged = if self.chance(self.road.forge) { forge(packet, random(&mut self.state)) } else { None };
        let before = random(&mut self.state) & 1 == 0;
        if let Some(f) = forged.as_ref().filter(|_| before) {
            count(&tally.forged);
            self.arrive(f);
        }
        if self.chance(self.road.loss) {
            count(&tally.lost);
        } else if self.chance(self.road.reorder) {
            count(&tally.reordered);
            self.waiting.push((3, packet.to_vec()));
        } else if self.chance(self.road.corrupt) {
            count(&tally.corrupted);
            let damaged = damage(packet, random(&mut self.state));
            self.arrive(&damaged);
        } else {
            self.arrive(packet);
        }
        if self.chance(self.road.double) {
            count(&tally.doubled);
            self.arrive(packet);
        }
        if let Some(f) = forged.filter(|_| !before) {
            count(&tally.forged);
            self.arrive(&f);
        }
        for (left, _) in &mut self.waiting {
            *left -= 1;
        }
        while self.waiting.first().is_some_and(|(left, _)| *left == 0) {
            let (_, packet) = self.waiting.remove(0);
            self.arrive(&packet);
        }
    }
}

/// Offsets of the TCP header and of its payload in an IPv4 packet that carries data.
fn data(packet: &[u8]) -> Option<(usize, usize)> {
    if packet.first()? >> 4 != 4 || *packet.get(9)? != 6 {
        return None;
    }
    let tcp = usize::from(packet[0] & 15) * 4;
    let payload = tcp + usize::from(*packet.get(tcp + 12)? >> 4) * 4;
    (payload < packet.len()).then_some((tcp, payload))
}

/// Changes one byte behind the IP header: in the payload when there is one.
fn damage(packet: &[u8], chance: u64) -> Vec<u8> {
    let mut damaged = packet.to_vec();
    let from = data(packet).map_or(20.min(packet.len() - 1), |(_, payload)| payload);
    let at = from + (chance >> 8) as usize % (packet.len() - from);
    damaged[at] ^= (chance as u8).max(1);
    damaged
}

/// A packet with other content than the one that it resembles, which TCP must refuse.
fn forge(packet: &[u8], chance: u64) -> Option<Vec<u8>> {
    let (tcp, payload) = data(packet)?;
    let mut forged = packet.to_vec();
    for byte in &mut forged[payload..] {
        *byte = b'X';
    }
    let seq = u32::from_be_bytes(packet[tcp + 4..tcp + 8].try_into().ok()?);
    let seq = match chance % 5 {
        // Outside of any window.
        0 => seq.wrapping_add(1 << 29),
        // Wholly old, farther than any send buffer: no hole can be there that it would fill.
        1 => seq.wrapping_sub(8 << 20),
        _ => seq,
    };
    forged[tcp + 4..tcp + 8].copy_from_slice(&seq.to_be_bytes());
    let mut refused = chance % 5 < 2;
    if chance % 5 == 2
        && let Some(at) = time_stamp(&packet[tcp + 20..payload])
    {
        let at = tcp + 20 + at;
        let value = u32::from_be_bytes(packet[at..at + 4].try_into().ok()?);
        forged[at..at + 4].copy_from_slice(&value.wrapping_sub(1 << 28).to_be_bytes());
        refused = true;
    }
    let sum = checksum(&forged, tcp);
    // What nothing else refuses has a wrong checksum.
    let sum = if refused { sum } else { sum ^ 0x0101 };
    forged[tcp + 16..tcp + 18].copy_from_slice(&sum.to_be_bytes());
    Some(forged)
}

/// Offset of the sender's time stamp in TCP options.
fn time_stamp(options: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match options.get(at)? {
            0 => return None,
            1 => at += 1,
            8 => return Some(at + 2),
            _ => at += usize::from(*options.get(at + 1)?).max(2),
        }
    }
}

/// TCP's checksum over the pseudo header of IPv4 (RFC 9293 section 3.1).
fn checksum(packet: &[u8], tcp: usize) -> u16 {
    let segment = &packet[tcp..];
    let mut sum: u32 = 6 + segment.len() as u32;
    let mut add = |bytes: &[u8]| {
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        }
    };
    add(&packet[12..20]);
    add(&segment[..16]);
    add(&segment[18..]);
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 packet with 8 bytes of data, with a time stamp, as a kernel sends it.
    fn packet() -> Vec<u8> {
        let mut p = vec![0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        p.extend([0x9c, 0x40, 0, 80, 0, 0, 1, 0, 0, 0, 2, 0, 0x80, 0x18, 1, 0, 0, 0, 0, 0]);
        p.extend([1, 1, 8, 10, 0x70, 0, 0, 0, 0, 0, 0, 1]);
        p.extend(b"12345678");
        let sum = checksum(&p, 20);
        p[36..38].copy_from_slice(&sum.to_be_bytes());
        p
    }

    #[test]
    fn the_checksum_verifies_itself() {
        let p = packet();
        assert_eq!(checksum(&p, 20).to_be_bytes(), p[36..38]);
        assert_ne!(checksum(&damage(&p, 0x1234_5678), 20).to_be_bytes(), p[36..38]);
    }

    #[test]
    fn every_forgery_has_a_reason_to_be_refused() {
        let p = packet();
        for chance in 0..5 {
            let f = forge(&p, chance).unwrap();
            let right = checksum(&f, 20).to_be_bytes() == f[36..38];
            let moved = f[24..28] != p[24..28];
            let late = f[44..48] != p[44..48];
            assert_eq!(right, moved || late, "{chance}");
            assert_eq!(f[52..], *b"XXXXXXXX");
        }
    }
}
