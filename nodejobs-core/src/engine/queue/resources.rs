//! Which of each named resource are in use.

use std::collections::BTreeMap;

/// By name and index, how many jobs have it. More than one only if an earlier owner was wrong.
#[derive(Debug, Default)]
pub(in crate::engine) struct Resources(BTreeMap<String, BTreeMap<u32, u32>>);

impl Resources {
    /// How many of those that there are are in use.
    pub(in crate::engine) fn used(&self, name: &str, total: u32) -> u32 {
        let used = self.0.get(name).map_or(0, |used| used.range(..total).count());
        u32::try_from(used).unwrap_or(u32::MAX)
    }

    /// How many jobs have this one.
    pub(super) fn holders(&self, name: &str, index: u32) -> u32 {
        self.0.get(name).and_then(|used| used.get(&index)).copied().unwrap_or(0)
    }

    /// The lowest free ones, so many of each as are wanted, or as there are.
    pub(super) fn choose(
        &self,
        needs: &BTreeMap<String, u32>,
        totals: &BTreeMap<String, u32>,
    ) -> BTreeMap<String, Vec<u32>> {
        let of_each = needs.iter().map(|(name, count)| {
            let total = totals.get(name).copied().unwrap_or(0);
            let free = (0..total).filter(|index| self.holders(name, *index) == 0);
            (name.clone(), free.take(*count as usize).collect())
        });
        of_each.collect()
    }

    pub(super) fn take(&mut self, assigned: &BTreeMap<String, Vec<u32>>) {
        for (name, indices) in assigned {
            let used = self.0.entry(name.clone()).or_default();
            indices.iter().for_each(|index| *used.entry(*index).or_default() += 1);
        }
    }

    pub(super) fn leave(&mut self, assigned: &BTreeMap<String, Vec<u32>>) {
        for (name, indices) in assigned {
            let Some(used) = self.0.get_mut(name) else { continue };
            for index in indices {
                if let Some(holders) = used.get_mut(index) {
                    *holders -= 1;
                    if *holders == 0 {
                        used.remove(index);
                    }
                }
            }
            if used.is_empty() {
                self.0.remove(name);
            }
        }
    }
}
