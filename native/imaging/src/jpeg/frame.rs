//! The tables and the frame of the common kind of JPEG: sequential, 8 bits, one scan of everything.

use std::rc::Rc;

use super::entropy::{Table, ZIGZAG};

/// One component of the picture.
pub(super) struct Component {
    id: u8,
    /// Blocks in one MCU, across and down.
    pub blocks: (usize, usize),
    quant: usize,
    /// Places in [`Frame::dc`] and [`Frame::ac`].
    pub dc: usize,
    pub ac: usize,
}

/// What is known when the scan begins.
pub(super) struct Frame {
    pub width: usize,
    pub height: usize,
    pub components: Vec<Component>,
    quants: [Option<Box<[i32; 64]>>; 4],
    dc: [Option<Rc<Table>>; 4],
    ac: [Option<Rc<Table>>; 4],
    /// MCUs between two restart markers; 0 = none.
    pub restart: usize,
    /// Where the entropy-coded data begin.
    pub scan: usize,
}

impl Frame {
    /// Reads the markers up to the scan. `None` for every other kind, and for anything faulty: then
    /// libjpeg-turbo decides.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut frame = Self {
            width: 0,
            height: 0,
            components: Vec::new(),
            quants: Default::default(),
            dc: Default::default(),
            ac: Default::default(),
            restart: 0,
            scan: 0,
        };
        let (mut jfif, mut adobe) = (false, None);
        let mut at = 2;
        loop {
            let [0xff, marker, high, low] = *bytes.get(at..at + 4)? else {
                return None;
            };
            let length = usize::from(u16::from_be_bytes([high, low]));
            let body = bytes.get(at + 4..at + 2 + length)?;
            at += 2 + length;
            match marker {
                0xc0 | 0xc1 => frame.read_frame(body)?,
                0xc4 => frame.read_huffman(body)?,
                0xdb => frame.read_quant(body)?,
                0xdd => frame.restart = usize::from(u16::from_be_bytes(body.try_into().ok()?)),
                0xda => {
                    frame.read_scan(body)?;
                    frame.scan = at;
                    break;
                }
                0xe0 => jfif |= body.starts_with(b"JFIF\0"),
                0xee if body.starts_with(b"Adobe") => adobe = Some(*body.get(11)?),
                0xe1..=0xef | 0xfe => {}
                _ => return None,
            }
        }
        let ids = frame.components.iter().map(|c| c.id);
        let ycc = match adobe {
            Some(transform) => transform == 1,
            None => jfif || ids.eq(1..=3),
        };
        (frame.components.len() == 1 || ycc).then_some(frame)
    }

    fn read_frame(&mut self, body: &[u8]) -> Option<()> {
        let [8, h1, h2, w1, w2, count, parts @ ..] = body else {
            return None;
        };
        if !self.components.is_empty() || parts.len() != usize::from(*count) * 3 {
            return None;
        }
        self.height = u16::from_be_bytes([*h1, *h2]).into();
        self.width = u16::from_be_bytes([*w1, *w2]).into();
        for part in parts.as_chunks::<3>().0 {
            self.components.push(Component {
                id: part[0],
                blocks: ((part[1] >> 4).into(), (part[1] & 15).into()),
                quant: part[2].into(),
                dc: 0,
                ac: 0,
            });
        }
        let blocks: Vec<_> = self.components.iter().map(|c| c.blocks).collect();
        let known = matches!(
            blocks[..],
            [(1, 1)] | [(1, 1), (1, 1), (1, 1)] | [(2, 2), (1, 1), (1, 1)]
        );
        (known && self.width > 0 && self.height > 0).then_some(())
    }

    fn read_huffman(&mut self, mut body: &[u8]) -> Option<()> {
        while let [class, rest @ ..] = body {
            let counts: &[u8; 16] = rest.first_chunk()?;
            let total: usize = counts.iter().map(|c| usize::from(*c)).sum();
            // Means have no runs: their symbols are numbers of bits alone.
            let largest = if class >> 4 == 0 { 15 } else { 255 };
            let table = Table::shared(counts, rest.get(16..16 + total)?, largest)?;
            let place = usize::from(class & 15);
            match class >> 4 {
                0 => *self.dc.get_mut(place)? = Some(table),
                1 => *self.ac.get_mut(place)? = Some(table),
                _ => return None,
            }
            body = &rest[16 + total..];
        }
        Some(())
    }

    fn read_quant(&mut self, mut body: &[u8]) -> Option<()> {
        while let [kind, rest @ ..] = body {
            let values: &[u8; 64] = rest.first_chunk()?;
            let mut table = Box::new([0; 64]);
            for (value, place) in values.iter().zip(ZIGZAG) {
                table[usize::from(place)] = i32::from(*value);
            }
            // Tables of 16 bits have no place here.
            *self.quants.get_mut(usize::from(*kind))? = Some(table);
            body = &rest[64..];
        }
        Some(())
    }

    fn read_scan(&mut self, body: &[u8]) -> Option<()> {
        let [count, parts @ .., 0, 63, 0] = body else {
            return None;
        };
        if usize::from(*count) != self.components.len() || parts.len() != self.components.len() * 2
        {
            return None;
        }
        for (component, part) in self.components.iter_mut().zip(parts.as_chunks::<2>().0) {
            if part[0] != component.id {
                return None;
            }
            (component.dc, component.ac) = ((part[1] >> 4).into(), (part[1] & 15).into());
        }
        let complete = self.components.iter().all(|c| {
            let there = |tables: &[Option<Rc<Table>>; 4], place| {
                tables.get(place).is_some_and(Option::is_some)
            };
            let quant = self.quants.get(c.quant).is_some_and(Option::is_some);
            quant && there(&self.dc, c.dc) && there(&self.ac, c.ac)
        });
        complete.then_some(())
    }

    /// The component's tables: DC, AC, quantization row by row.
    pub fn tables(&self, component: &Component) -> Option<(&Table, &Table, &[i32; 64])> {
        Some((
            self.dc[component.dc].as_deref()?,
            self.ac[component.ac].as_deref()?,
            self.quants[component.quant].as_deref()?,
        ))
    }
}
