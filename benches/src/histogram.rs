//! A log-linear latency histogram: 256 steps in every power of two, so the error is at most 0.4 %.

const STEP_BITS: u32 = 8;
const STEPS: u64 = 1 << STEP_BITS;
const BUCKETS: usize = (65 - STEP_BITS as usize) << STEP_BITS;

/// Counts of values of any unit.
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: vec![0; BUCKETS], total: 0 }
    }
}

impl Histogram {
    /// Counts one value.
    pub fn record(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.total += 1;
    }

    /// The number of values counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The smallest recorded value that `percent` of all values do not exceed; 0 if empty.
    pub fn percentile(&self, percent: f64) -> u64 {
        let wanted = ((percent / 100.0 * self.total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return middle(index);
            }
        }
        0
    }
}

fn bucket(value: u64) -> usize {
    if value < 2 * STEPS {
        return value as usize;
    }
    let shift = 63 - value.leading_zeros() - STEP_BITS;
    ((u64::from(shift) << STEP_BITS) + (value >> shift)) as usize
}

fn middle(index: usize) -> u64 {
    let index = index as u64;
    if index < 2 * STEPS {
        return index;
    }
    let shift = (index >> STEP_BITS) - 1;
    let low = (index - (shift << STEP_BITS)) << shift;
    low + (1 << shift) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lands_near_itself() {
        for exponent in 0..63 {
            for offset in [0, 1, 77] {
                let value = (1u64 << exponent) + offset;
                let error = middle(bucket(value)).abs_diff(value);
                assert!(error * 256 <= value, "{value}: off by {error}");
            }
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn percentiles() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(50.0), 0);
        (1..=100).for_each(|value| histogram.record(value));
        assert_eq!(histogram.percentile(50.0), 50);
        assert_eq!(histogram.percentile(99.0), 99);
        assert_eq!(histogram.percentile(100.0), 100);
    }
}
