//! Content codings: which precompressed variants of a file a client accepts (RFC 9110 section 12.5.3).

use super::fields::{Fields, elements};

/// The coding of a precompressed variant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coding {
    /// RFC 7932.
    Brotli,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// The name in Content-Encoding.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Coding::Brotli => "br",
            Coding::Gzip => "gzip",
        }
    }

    /// The suffix of a variant's file name.
    pub(crate) fn ending(self) -> &'static str {
        match self {
            Coding::Brotli => ".br",
            Coding::Gzip => ".gz",
        }
    }
}

/// Whether to look for variants of this file: a compressed file has none.
pub(crate) fn may_have_variants(path: &str) -> bool {
    ![Coding::Brotli, Coding::Gzip].iter().any(|coding| path.ends_with(coding.ending()))
}

/// The codings to try, in the client's order of preference, before the file itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Codings {
    tries: [Option<Coding>; 2],
    /// Whether `identity` is acceptable.
    pub(crate) takes_plain: bool,
}

impl Codings {
    /// Only the file itself.
    pub(crate) const PLAIN: Codings = Codings { tries: [None; 2], takes_plain: true };

    /// Parses Accept-Encoding. Without it, only the file itself is sent.
    pub fn read(fields: &Fields) -> Codings {
        let weight = |name: &[u8]| weight(fields, name);
        let any = weight(b"*");
        let plain = weight(b"identity").or(any);
        let brotli = weight(b"br").or(any).unwrap_or(0);
        let gzip = weight(b"gzip").or_else(|| weight(b"x-gzip")).or(any).unwrap_or(0);
        // With equal weights Brotli is first: it is smaller.
        let mut tries = [(brotli, Coding::Brotli), (gzip, Coding::Gzip)];
        if gzip > brotli {
            tries.reverse();
        }
        // Variants with a lower weight than `identity` are not looked for; an unnamed `identity` is the last choice.
        let least = plain.unwrap_or(0).max(1);
        Codings {
            tries: tries.map(|(weight, coding)| (weight >= least).then_some(coding)),
            takes_plain: plain != Some(0),
        }
    }

    /// Drops the codings for which this is false.
    pub(crate) fn retain(&mut self, is_kept: impl Fn(Coding) -> bool) {
        self.tries = self.tries.map(|coding| coding.filter(|coding| is_kept(*coding)));
    }

    /// Removes and returns the next coding.
    pub fn pop(&mut self) -> Option<Coding> {
        self.tries.iter_mut().find_map(Option::take)
    }
}

/// The weight of a coding in thousandths. None: not listed with a valid weight. Of several elements the first counts.
fn weight(fields: &Fields, name: &[u8]) -> Option<u16> {
    elements(fields, "accept-encoding").find_map(|element| {
        let mut parts = element.splitn(2, |byte| *byte == b';').map(<[u8]>::trim_ascii);
        if !parts.next()?.eq_ignore_ascii_case(name) {
            return None;
        }
        parts.next().map_or(Some(1000), parse_weight)
    })
}

/// A weight as in "q=0.5" (RFC 9110 section 12.4.2).
fn parse_weight(parameter: &[u8]) -> Option<u16> {
    let value = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q="))?;
    let (whole, digits) = value.split_first()?;
    let digits = match digits {
        [] => digits,
        [b'.', digits @ ..] => digits,
        _ => return None,
    };
    if digits.len() > 3 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let thousandths = (0..3).fold(0, |sum, at| sum * 10 + digits.get(at).map_or(0, |digit| u16::from(digit - b'0')));
    match (whole, thousandths) {
        (b'0', _) => Some(thousandths),
        (b'1', 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(fields: &Fields) -> (Vec<&'static str>, bool) {
        let mut codings = Codings::read(fields);
        let plain = codings.takes_plain;
        (std::iter::from_fn(|| codings.pop()).map(Coding::name).collect(), plain)
    }

    #[test]
    fn accepted_codings() {
        let cases: &[(&str, &[&str], bool)] = &[
            ("", &[], true),
            ("gzip", &["gzip"], true),
            ("x-gzip", &["gzip"], true),
            ("GZip", &["gzip"], true),
            ("br", &["br"], true),
            ("gzip, deflate, br, zstd", &["br", "gzip"], true),
            ("gzip;q=1.0, br;q=0.9", &["gzip", "br"], true),
            ("gzip ; q=0.5 ,\tbr ; Q=0.500", &["br", "gzip"], true),
            ("gzip;q=0", &[], true),
            ("gzip;q=0.000, br;q=0.001", &["br"], true),
            ("*", &["br", "gzip"], true),
            ("*;q=0.1, gzip;q=0", &["br"], true),
            ("gzip, *;q=0", &["gzip"], false),
            ("*;q=0", &[], false),
            ("identity;q=0", &[], false),
            ("identity;q=0, gzip;q=0.1", &["gzip"], false),
            ("identity, *;q=0", &[], true),
            ("*;q=0, identity;q=0.1", &[], true),
            ("identity;q=1, gzip;q=0.9", &[], true),
            ("identity;q=0.5, gzip;q=0.9, br;q=0.1", &["gzip"], true),
            ("identity, gzip", &["gzip"], true),
            ("deflate", &[], true),
            ("gzippy, brr", &[], true),
            // An element with an invalid weight is ignored.
            ("gzip;q=2", &[], true),
            ("gzip;q=1.001", &[], true),
            ("gzip;q=0.0001", &[], true),
            ("gzip;q=-1", &[], true),
            ("gzip;q=", &[], true),
            ("gzip;q=0.5;x=y", &[], true),
            ("gzip;level=9", &[], true),
            ("gzip;", &[], true),
            (",, gzip ,,", &["gzip"], true),
            ("\u{ff}gzip", &[], true),
            // The first element counts.
            ("gzip;q=0, gzip", &[], true),
        ];
        for (value, codings, plain) in cases {
            assert_eq!(tried(&[("Accept-Encoding", value.as_bytes())]), (codings.to_vec(), *plain), "{value:?}");
        }
        assert_eq!(tried(&[("Accept", b"gzip")]), (vec![], true));
        assert_eq!(tried(&[("accept-encoding", b"gzip"), ("Accept-Encoding", b"br")]).0, ["br", "gzip"]);
    }

    #[test]
    fn variants_have_no_variants() {
        assert!(may_have_variants("a/b.js") && may_have_variants("gz") && may_have_variants("a.gz/b"));
        assert!(!may_have_variants("a.gz") && !may_have_variants("a.js.br"));
    }
}
