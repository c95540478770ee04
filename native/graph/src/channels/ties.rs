//! Union–find over channels.

/// Disjoint sets of channels, each channel known by a number.
#[derive(Debug, Default)]
pub(super) struct Ties {
    parent: Vec<u32>,
}

impl Ties {
    /// `count` new channels, tied to nothing; returns their numbers.
    pub fn fresh(&mut self, count: usize) -> Vec<u32> {
        let first = self.parent.len() as u32;
        let new = first..first + count as u32;
        self.parent.extend(new.clone());
        new.collect()
    }

    /// The smallest number of the set that `channel` belongs to.
    pub fn find(&mut self, channel: u32) -> u32 {
        let mut root = channel;
        while self.parent[root as usize] != root {
            root = self.parent[root as usize];
        }
        let mut at = channel;
        while at != root {
            at = std::mem::replace(&mut self.parent[at as usize], root);
        }
        root
    }

    /// Ties two channels: from now on they go together.
    pub fn tie(&mut self, a: u32, b: u32) {
        let (a, b) = (self.find(a), self.find(b));
        self.parent[a.max(b) as usize] = a.min(b);
    }

    /// Ties two lists of one length, one by one.
    pub fn tie_all(&mut self, a: &[u32], b: &[u32]) {
        for (&a, &b) in a.iter().zip(b) {
            self.tie(a, b);
        }
    }

    /// Ties the channels that stand at the same place of each of `groups` equal parts of `list`.
    pub fn tie_parts(&mut self, list: &[u32], groups: usize) {
        let len = list.len() / groups;
        for part in list.chunks_exact(len.max(1)).skip(1) {
            self.tie_all(&list[..len], part);
        }
    }
}
