//! Keys of many records, held and searched for repeats: `many_keys COUNT` prints `keys bytes_a_key keys_per_cpu_sec`.

use std::fmt::Write as _;

use memferry_core::error::{Error, Result};
use memferry_core::record::{CONTENT, Kind, RecordRef};
use memferry_core::transform::dedup::{DedupKeys, key};

/// Texts that are made at a time, within what is measured.
const TEXTS: usize = 1024;

/// The most memory that this process has had.
fn peak_bytes() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok());
    Ok(kib.ok_or_else(|| Error::invalid("no VmHWM"))? * 1024.0)
}

fn cpu_secs() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = text.split(' ').next().and_then(|word| word.parse::<f64>().ok());
    Ok(nanos.ok_or_else(|| Error::invalid("no schedstat"))? / 1e9)
}

fn main() -> Result<()> {
    let count = std::env::args().nth(1).and_then(|word| word.parse::<u64>().ok());
    let count = count.ok_or_else(|| Error::invalid("usage: many_keys COUNT"))?;
    let (memory, cpu) = (peak_bytes()?, cpu_secs()?);
    let mut keys = DedupKeys::new(false);
    let (mut texts, mut scratch) = (vec![String::new(); TEXTS], Vec::new());
    for first in (0..count).step_by(TEXTS) {
        for (text, number) in texts.iter_mut().zip(first..count) {
            text.clear();
            write!(text, "memory {number}").unwrap_or_default();
        }
        let mut record = RecordRef::new(Kind::Memory, "");
        for text in texts.iter().take((count - first) as usize) {
            record.texts[CONTENT] = Some(text);
            keys.extend(key(&record, &mut scratch));
        }
    }
    let (_, repeated) = keys.repeated();
    let (memory, cpu) = (peak_bytes()? - memory, cpu_secs()? - cpu);
    assert_eq!((count, 0), (keys.len() as u64, repeated));
    #[expect(clippy::print_stdout, reason = "the answer of a benchmark")]
    {
        println!("keys {:.1} {:.0}", memory / count as f64, count as f64 / cpu);
    }
    Ok(())
}
