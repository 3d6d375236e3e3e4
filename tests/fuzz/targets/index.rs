//! The authority's index: what is read is what would be written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uakari_ca::Index;
use uakari_fuzz as _;

fuzz_target!(|data: &[u8]| {
    if let Ok(index) = Index::parse(data) {
        assert_eq!(Index::parse(index.to_text().as_bytes()).expect("an index"), index);
    }
});
