//! Lists of 128-bit keys: who stands twice, who stands in both. 16 bytes a key.

/// Keys in the order they came, sorted when asked.
#[derive(Debug, Default)]
pub struct Keys {
    keys: Vec<u128>,
    sorted: bool,
}

impl Keys {
    /// Adds keys.
    pub fn extend(&mut self, keys: impl IntoIterator<Item = u128>) {
        self.keys.extend(keys);
        self.sorted = false;
    }

    /// How many keys were added.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether none was added.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn sort(&mut self) {
        if !self.sorted {
            self.keys.sort_unstable();
            self.sorted = true;
        }
    }

    /// Keys that were added more than once, each once.
    pub fn repeated(&mut self) -> Vec<u128> {
        self.sort();
        let mut repeated: Vec<u128> =
            self.keys.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        repeated.dedup();
        repeated
    }

    /// Whether `key` was added.
    pub fn contains(&mut self, key: u128) -> bool {
        self.sort();
        self.keys.binary_search(&key).is_ok()
    }
}
