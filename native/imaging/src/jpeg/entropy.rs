//! Huffman decoding of sequential JPEG (ITU-T T.81, annex F), with a fast way past coefficients that
//! nobody needs: one look-up steps over several whole symbols.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

/// Bits that a look-up sees at once.
const WIDTH: u32 = 13;
const ENTRIES: usize = 1 << WIDTH;

/// Coefficients of an 8-bit picture reach 1024 and half a step of quantization; libjpeg-turbo wraps what
/// is beyond this.
pub(super) const LARGEST: i32 = 4088;

/// Tables that a thread keeps.
const MOST_KNOWN: usize = 16;

thread_local! {
    static KNOWN: RefCell<Vec<(Vec<u8>, Rc<Table>)>> = const { RefCell::new(Vec::new()) };
}

fn filled<T: Copy + Default, const N: usize>(entry: impl FnMut(usize) -> T) -> Box<[T; N]> {
    let entries: Box<[T]> = (0..N).map(entry).collect();
    entries
        .try_into()
        .unwrap_or_else(|_| Box::new([T::default(); N]))
}

/// A Huffman table with its look-ups.
pub(super) struct Table {
    /// By the next bits: length of the code << 8 | symbol; 0 for longer codes.
    first: Box<[u16; ENTRIES]>,
    /// Largest code of each length, as 16 bits from the left, and the place of its symbols.
    limit: [u32; 17],
    offset: [i32; 17],
    symbols: Vec<u8>,
    /// By the next bits: all whole symbols of a block's AC coefficients in them, see [`step_over`].
    steps: OnceCell<Box<[u16; ENTRIES]>>,
    /// By the next bits: one or two AC coefficients, see [`Table::coefficients`].
    values: OnceCell<Box<[u64; VALUE_ENTRIES]>>,
}

/// Bits that a look-up of coefficients sees: tables of 16 KiB leave room in the nearest cache.
const VALUE_WIDTH: u32 = 11;
const VALUE_ENTRIES: usize = 1 << VALUE_WIDTH;
/// What the end of a block adds to the place.
const PAST: u64 = 64;

/// How look-ups of several symbols are packed: their bits, extra bits included, in the lowest four; in
/// the next seven the coefficients passed and, with [`END`], one for the end of the block. Too many of
/// them for any block stand for no whole symbol. Tables of 16 KiB leave room in the nearest cache.
const END: u16 = 1 << 11;
const NONE: u16 = 127 << 4;

impl Table {
    /// From the counts of codes of length 1–16 and the symbols in code order, none above
    /// `largest`; `None` for a faulty one.
    pub fn new(counts: &[u8; 16], symbols: &[u8], largest: u8) -> Option<Self> {
        if symbols.iter().any(|symbol| *symbol > largest) {
            return None;
        }
        let mut table = Self {
            first: vec![0; ENTRIES].try_into().ok()?,
            limit: [0; 17],
            offset: [0; 17],
            symbols: symbols.to_vec(),
            steps: OnceCell::new(),
            values: OnceCell::new(),
        };
        let (mut code, mut place) = (0u32, 0usize);
        for length in 1..=16u32 {
            let count = usize::from(counts[length as usize - 1]);
            table.offset[length as usize] = place as i32 - code as i32;
            for symbol in symbols.get(place..place + count)? {
                // A code of ones alone is not allowed.
                if code + 1 >= 1 << length {
                    return None;
                }
                if length <= WIDTH {
                    let shift = WIDTH - length;
                    let start = (code << shift) as usize;
                    let entry = (length as u16) << 8 | u16::from(*symbol);
                    table.first[start..start + (1 << shift)].fill(entry);
                }
                code += 1;
            }
            place += count;
            table.limit[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Some(table)
    }

    /// Like [`Self::new`]; tables that files share are made once, as nearly all do.
    pub fn shared(counts: &[u8; 16], symbols: &[u8], largest: u8) -> Option<Rc<Self>> {
        let key = [&[largest], &counts[..], symbols].concat();
        KNOWN.with_borrow_mut(|known| {
            if let Some(place) = known.iter().position(|(k, _)| *k == key) {
                return Some(known[place].1.clone());
            }
            let table = Rc::new(Self::new(counts, symbols, largest)?);
            if known.len() == MOST_KNOWN {
                known.remove(0);
            }
            known.push((key, table.clone()));
            Some(table)
        })
    }

    /// Prepares [`Bits::skip_block`].
    pub fn prepare_steps(&self) {
        self.steps
            .get_or_init(|| filled(|next| self.step_over(next)));
    }

    /// Prepares [`Bits::read_coefficients`].
    pub fn prepare_values(&self) {
        self.values
            .get_or_init(|| filled(|next| self.coefficients(next)));
    }

    /// The coefficients at the front of these bits, at most two, from the lowest bit on: 6 bits for the bits they
    /// take, 2 of nothing, 8 for the places they move on; the same of the first alone, places before bits; the first's
    /// value of 16 bits, then the last's. One alone stands for both. 0 where none fits.
    fn coefficients(&self, next: usize) -> u64 {
        let Some((bits, places, value)) = self.coefficient(next, 0) else {
            return 0;
        };
        let first = places << 16 | bits << 24 | (u64::from(value as u16) << 32);
        let alone = first | bits | places << 8 | (u64::from(value as u16) << 48);
        if places == PAST {
            return alone;
        }
        let Some((more, further, value)) = self.coefficient(next, bits as u32) else {
            return alone;
        };
        let last = u64::from(value as u16) << 48;
        first | last | (bits + more) | (places + further) << 8
    }

    /// The coefficient behind the first `taken` of these bits: its bits, the places it moves on, its value.
    fn coefficient(&self, next: usize, taken: u32) -> Option<(u64, u64, i16)> {
        let entry = self.first[next << (WIDTH - VALUE_WIDTH + taken) & (ENTRIES - 1)];
        let (length, symbol) = (u32::from(entry >> 8), u32::from(entry & 255));
        let (run, extra) = (symbol >> 4, symbol & 15);
        if length == 0 || taken + length + extra > VALUE_WIDTH {
            return None;
        }
        let places = match (extra, run) {
            (0, 15) => 16,
            (0, _) => PAST,
            _ => u64::from(run) + 1,
        };
        let raw = (next >> (VALUE_WIDTH - taken - length - extra)) as i32 & ((1 << extra) - 1);
        Some((u64::from(length + extra), places, signed(raw, extra) as i16))
    }

    /// Length and symbol of the code that these 16 bits begin with, longer than what `first` sees.
    #[cold]
    fn long(&self, code: u32) -> Option<(u32, u8)> {
        let length = (WIDTH + 1..=16).find(|l| code < self.limit[*l as usize])?;
        let place = (code >> (16 - length)) as i32 + self.offset[length as usize];
        let symbol = self.symbols.get(usize::try_from(place).ok()?)?;
        Some((length, *symbol))
    }

    /// All whole symbols at the front of these bits.
    fn step_over(&self, next: usize) -> u16 {
        let packed = |coefficients: u32, taken: u32| (coefficients << 4 | taken) as u16;
        let (mut taken, mut coefficients) = (0u32, 0u32);
        while coefficients < 63 {
            let entry = self.first[next << taken & (ENTRIES - 1)];
            let (length, symbol) = (u32::from(entry >> 8), u32::from(entry & 255));
            let (run, extra) = (symbol >> 4, symbol & 15);
            if length == 0 || taken + length + extra > WIDTH {
                break;
            }
            taken += length + extra;
            match (extra, run) {
                (0, 15) => coefficients += 16,
                (0, _) => return END | packed(coefficients + 1, taken),
                _ => coefficients += run + 1,
            }
        }
        if taken == 0 {
            NONE
        } else {
            packed(coefficients, taken)
        }
    }
}

/// The value that is coded as `raw` in so many bits (T.81, F.2.2.1).
#[inline(always)]
fn signed(raw: i32, bits: u32) -> i32 {
    let half = (1 << bits) >> 1;
    raw - if raw < half { (1 << bits) - 1 } else { 0 }
}

/// Entropy-coded data as bits; stops before markers. Loops work on a copy, which then lives in registers.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, from the left.
    next: u64,
    left: u32,
    /// Zero bits that stand for what is behind the end.
    beyond: u32,
}

impl<'a> Bits<'a> {
    pub fn new(data: &'a [u8], at: usize) -> Self {
        Self {
            data,
            at,
            next: 0,
            left: 0,
            beyond: 0,
        }
    }

    /// A copy for a loop: its parts live in registers, because nothing else knows where it is.
    #[inline(always)]
    pub fn own(self) -> Self {
        Self {
            data: self.data,
            at: self.at,
            next: self.next,
            left: self.left,
            beyond: self.beyond,
        }
    }

    /// At least 56 bits.
    #[inline(always)]
    fn fill(&mut self) {
        if let Some(word) = self.data.get(self.at..).and_then(|d| d.first_chunk()) {
            let word = u64::from_be_bytes(*word);
            // No byte is 0xff (a zero byte of the inverse).
            const ONES: u64 = 0x0101_0101_0101_0101;
            if (!word).wrapping_sub(ONES) & word & (ONES << 7) == 0 {
                // What lies beyond the counted bits will be the same when it is counted.
                self.next |= word >> self.left;
                let bytes = (63 - self.left) >> 3;
                self.at += bytes as usize;
                self.left += bytes * 8;
                return;
            }
        }
        *self = Self::filled_slowly(self.data, self.at, self.next, self.left, self.beyond);
    }

    /// All by value: a reference would keep the bits in memory.
    #[cold]
    #[inline(never)]
    fn filled_slowly(data: &'a [u8], at: usize, next: u64, left: u32, beyond: u32) -> Self {
        let mut bits = Self {
            data,
            at,
            next,
            left,
            beyond,
        };
        while bits.left < 56 {
            let byte = match bits.data.get(bits.at..) {
                Some([0xff, 0, ..]) => {
                    bits.at += 2;
                    0xff
                }
                Some([byte, ..]) if *byte != 0xff => {
                    bits.at += 1;
                    *byte
                }
                _ => {
                    bits.beyond += 8;
                    0
                }
            };
            bits.next |= u64::from(byte) << (56 - bits.left);
            bits.left += 8;
        }
        bits
    }

    #[inline(always)]
    fn drop(&mut self, bits: u32) {
        self.next = self.next.wrapping_shl(bits);
        self.left -= bits;
    }

    /// The next symbol; needs 16 bits. `None` for a code that is not there.
    #[inline(always)]
    fn symbol(&mut self, table: &Table) -> Option<u8> {
        let entry = table.first[(self.next >> (64 - WIDTH)) as usize];
        if entry != 0 {
            self.drop(u32::from(entry >> 8));
            return Some(entry as u8);
        }
        let (length, symbol) = table.long((self.next >> 48) as u32)?;
        self.drop(length);
        Some(symbol)
    }

    /// A signed value of so many bits.
    #[inline(always)]
    fn value(&mut self, bits: u32) -> i32 {
        let raw = ((self.next >> 1) >> (63 - bits)) as i32;
        self.drop(bits);
        signed(raw, bits)
    }

    /// The difference of a block's mean to the one before.
    #[inline(always)]
    pub fn dc(&mut self, table: &Table) -> Option<i32> {
        self.fill();
        let bits = u32::from(self.symbol(table)?);
        if bits > 11 {
            return None;
        }
        Some(self.value(bits))
    }

    /// Reads a block's AC coefficients without looking at them.
    #[inline(always)]
    pub fn skip_block(&mut self, table: &Table) -> Option<()> {
        let steps = table.steps.get()?;
        let mut at = 1u32;
        loop {
            self.fill();
            // Four look-ups take at most 52 bits.
            for _ in 0..4 {
                let step = u32::from(steps[(self.next >> (64 - WIDTH)) as usize]);
                let then = at + (step >> 4 & 127);
                // A full block has no end symbol: what looks like one belongs to the next block.
                if then > 64 {
                    if at == 64 {
                        return Some(());
                    }
                    self.fill();
                    let symbol = self.symbol(table)?;
                    let (run, bits) = (u32::from(symbol >> 4), u32::from(symbol & 15));
                    match (bits, run) {
                        (0, 15) => at += 16,
                        (0, _) => return Some(()),
                        _ => at += run + 1,
                    }
                    self.drop(bits);
                    if at > 64 {
                        return None;
                    }
                    break;
                }
                self.drop(step & 15);
                if step & u32::from(END) != 0 {
                    return Some(());
                }
                at = then;
            }
        }
    }

    /// Reads a block's AC coefficients and gives each to `put` with its place in the file's order; places of 64 and
    /// more lie behind the end, and zeros may be given.
    #[inline(always)]
    pub fn read_coefficients(
        &mut self,
        table: &Table,
        mut put: impl FnMut(usize, i16),
    ) -> Option<()> {
        let values = table.values.get()?;
        let mut at = 0usize;
        loop {
            self.fill();
            // Five look-ups take at most 55 bits.
            for _ in 0..5 {
                let entry = values[(self.next >> (64 - VALUE_WIDTH)) as usize];
                if entry == 0 {
                    if self.left < 32 {
                        self.fill();
                    }
                    let symbol = self.symbol(table)?;
                    let (run, bits) = (usize::from(symbol >> 4), u32::from(symbol & 15));
                    match (bits, run) {
                        (0, 15) => at += 16,
                        (0, _) => return Some(()),
                        _ => {
                            at += run + 1;
                            put(at, self.value(bits) as i16);
                        }
                    }
                    if at >= 63 {
                        return (at == 63).then_some(());
                    }
                    break;
                }
                let first = at + (entry >> 16 & 255) as usize;
                let last = at + (entry >> 8 & 255) as usize;
                put(first, (entry >> 32) as i16);
                if last >= 63 {
                    // What follows a full block belongs to the next one.
                    if first >= 63 {
                        self.drop((entry >> 24 & 255) as u32);
                        return (first == 63 || first - at == PAST as usize).then_some(());
                    }
                    self.drop((entry & 63) as u32);
                    put(last, (entry >> 48) as i16);
                    return (last == 63 || last - first == PAST as usize).then_some(());
                }
                put(last, (entry >> 48) as i16);
                self.drop((entry & 63) as u32);
                at = last;
            }
        }
    }

    /// Whether all that was read was there.
    pub fn is_whole(&self) -> bool {
        self.left >= self.beyond
    }

    /// Behind the marker `code`, which must be next but for less than a byte of padding.
    pub fn behind(mut self, code: u8) -> Option<Self> {
        let padding = self.left.checked_sub(self.beyond)?;
        // Bits read ahead are whole bytes that no marker interrupts.
        if padding >= 8 {
            return None;
        }
        while self.data.get(self.at..self.at + 2)? == [0xff, 0xff] {
            self.at += 1;
        }
        if self.data.get(self.at..self.at + 2)? != [0xff, code] {
            return None;
        }
        Some(Self::new(self.data, self.at + 2))
    }
}

/// Places of coefficients, row by row, in the order of the file (T.81, figure A.6).
pub(super) const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// A table of quantization, given row by row, in the order of the file.
pub(super) fn in_file_order(quant: &[i32; 64]) -> [i32; 64] {
    ZIGZAG.map(|place| quant[usize::from(place)])
}

/// [`ZIGZAG`], followed by places behind the block for what is beyond its end.
pub(super) static ZIGZAG_PADDED: [u8; 128] = {
    let mut places = [64; 128];
    let mut i = 0;
    while i < 64 {
        places[i] = ZIGZAG[i];
        i += 1;
    }
    places
};
