//! Reads what the daemon needs of certificates, revocation lists and keys (RFC 5280, RFC 5958), and skips the rest.
//! Verification is rustls' and its webpki's.

use std::fmt::{self, Write as _};

use der::asn1::{GeneralizedTime, UtcTime};
use der::{AnyRef, Decode, Reader, SliceReader, Tag, TagNumber, Tagged};

/// Fields of a certificate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Certificate<'a> {
    /// The bytes of the number, as they are encoded.
    pub(super) serial: &'a [u8],
    /// The contents of the issuer's name.
    pub(super) issuer: &'a [u8],
    /// The contents of the subject's name.
    pub(super) subject: &'a [u8],
    pub(super) validity: Validity,
    /// The contents of SubjectPublicKeyInfo.
    pub(super) key_info: &'a [u8],
}

/// The time in which a certificate is valid, in seconds since 1970. Times before 1970 are 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Validity {
    pub(super) not_before_s: u64,
    pub(super) not_after_s: u64,
}

impl<'a> Certificate<'a> {
    /// Reads a certificate (RFC 5280 section 4.1). None: it is malformed.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Certificate<'a>> {
        let mut certificate = Fields::of_sequence(bytes)?;
        let mut fields = Fields::of(certificate.next(Tag::Sequence)?)?;
        fields.skip(Tag::ContextSpecific { constructed: true, number: TagNumber(0) });
        let serial = fields.next(Tag::Integer)?;
        fields.next(Tag::Sequence)?;
        let issuer = fields.next(Tag::Sequence)?;
        let mut times = Fields::of(fields.next(Tag::Sequence)?)?;
        let validity = Validity { not_before_s: times.next_time()?, not_after_s: times.next_time()? };
        let subject = fields.next(Tag::Sequence)?;
        let key_info = fields.next(Tag::Sequence)?;
        Some(Certificate { serial, issuer, subject, validity, key_info })
    }
}

/// Fields of a revocation list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RevocationList {
    /// In seconds since 1970.
    pub(super) this_update_s: u64,
    /// In seconds since 1970. None: it does not expire.
    pub(super) next_update_s: Option<u64>,
}

impl RevocationList {
    /// Reads a revocation list (RFC 5280 section 5.1). None: it is malformed.
    pub(super) fn read(bytes: &[u8]) -> Option<RevocationList> {
        let mut list = Fields::of_sequence(bytes)?;
        let mut fields = Fields::of(list.next(Tag::Sequence)?)?;
        fields.skip(Tag::Integer);
        fields.next(Tag::Sequence)?;
        fields.next(Tag::Sequence)?;
        let this_update_s = fields.next_time()?;
        let next_update_s = fields.clone().next_time();
        Some(RevocationList { this_update_s, next_update_s })
    }
}

/// The contents of bytes that are one sequence.
pub(super) fn sequence_contents(bytes: &[u8]) -> Option<&[u8]> {
    AnyRef::from_der(bytes).ok().filter(|value| value.tag() == Tag::Sequence).map(AnyRef::value)
}

/// The values of a sequence.
#[derive(Clone)]
struct Fields<'a>(SliceReader<'a>);

impl<'a> Fields<'a> {
    /// The values within contents.
    fn of(contents: &'a [u8]) -> Option<Fields<'a>> {
        SliceReader::new(contents).ok().map(Fields)
    }

    /// The fields of bytes that are one sequence.
    fn of_sequence(bytes: &'a [u8]) -> Option<Fields<'a>> {
        sequence_contents(bytes).and_then(Fields::of)
    }

    /// The next value. None: there is none, or it is malformed.
    fn next_any(&mut self) -> Option<AnyRef<'a>> {
        AnyRef::decode(&mut self.0).ok()
    }

    /// The contents of the next value, which has this tag.
    fn next(&mut self, tag: Tag) -> Option<&'a [u8]> {
        self.next_any().filter(|value| value.tag() == tag).map(AnyRef::value)
    }

    /// Skips the next value if it has this tag.
    fn skip(&mut self, tag: Tag) {
        if Tag::peek(&self.0).is_ok_and(|next| next == tag) {
            self.next_any();
        }
    }

    /// The next value, which is a time, in seconds since 1970.
    fn next_time(&mut self) -> Option<u64> {
        let value = self.next_any()?;
        let since = match value.tag() {
            Tag::UtcTime => value.decode_as::<UtcTime>().map(|time| time.to_unix_duration()),
            Tag::GeneralizedTime => value.decode_as::<GeneralizedTime>().map(|time| time.to_unix_duration()),
            _ => return None,
        };
        // The years from 1950 to 1969 are legal, and errors here.
        Some(since.map_or(0, |since| since.as_secs()))
    }
}

const COMMON_NAME: &[u8] = &[0x55, 4, 3];

/// Attribute types and their names: the table of RFC 4514 section 3, then others as OpenSSL writes them.
const ATTRIBUTES: &[(&[u8], &str)] = &[
    (COMMON_NAME, "CN"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
    (&[0x55, 4, 4], "SN"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x55, 4, 12], "title"),
    (&[0x55, 4, 42], "GN"),
    (&[0x55, 4, 97], "organizationIdentifier"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], "emailAddress"),
];

/// A name as a string (RFC 4514), the most specific attribute first. Control characters are escaped too. None: it is
/// malformed.
pub(super) fn name_string(name: &[u8]) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    for Attribute { is_first, kind, value } in attributes(name)? {
        let text = attribute_string(kind, value)?;
        match parts.last_mut() {
            Some(part) if !is_first => *part = format!("{part}+{text}"),
            _ => parts.push(text),
        }
    }
    parts.reverse();
    Some(parts.join(","))
}

/// The most specific common name of a name. None: there is none, or it is not plain text.
pub(super) fn common_name(name: &[u8]) -> Option<String> {
    let attributes = attributes(name)?;
    let last = attributes.iter().rfind(|attribute| attribute.kind == COMMON_NAME)?;
    let text = AnyRef::from_der(last.value).ok().and_then(text_of);
    text.filter(|text| !text.contains(char::is_control))
}

/// An attribute of a name.
struct Attribute<'a> {
    /// Whether it is the first one of its RDN.
    is_first: bool,
    /// The contents of its object identifier.
    kind: &'a [u8],
    /// Its encoded value.
    value: &'a [u8],
}

/// The attributes of a name. None: it is malformed.
fn attributes(name: &[u8]) -> Option<Vec<Attribute<'_>>> {
    let mut found = Vec::new();
    let mut sets = Fields::of(name)?;
    while !sets.0.is_finished() {
        let mut set = Fields::of(sets.next(Tag::Set)?)?;
        let mut is_first = true;
        while !set.0.is_finished() {
            let mut fields = Fields::of(set.next(Tag::Sequence)?)?;
            let kind = fields.next(Tag::ObjectIdentifier)?;
            found.push(Attribute { is_first, kind, value: fields.0.tlv_bytes().ok()? });
            is_first = false;
        }
    }
    Some(found)
}

/// An attribute as `TYPE=VALUE`. A value is written in hexadecimal digits if its syntax or its type's name is unknown.
fn attribute_string(kind: &[u8], value: &[u8]) -> Option<String> {
    let name = ATTRIBUTES.iter().find(|(known, _)| *known == kind).map(|(_, name)| *name);
    match (name, AnyRef::from_der(value).ok().and_then(text_of)) {
        (Some(name), Some(text)) => Some(format!("{name}={}", escaped(&text))),
        (Some(name), None) => Some(format!("{name}=#{}", hex(value))),
        (None, _) => Some(format!("{}=#{}", dotted(kind)?, hex(value))),
    }
}

/// The text of a string value (X.520 DirectoryString, IA5String). None: it is another type, or malformed.
fn text_of(value: AnyRef<'_>) -> Option<String> {
    let bytes = value.value();
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::VisibleString => {
            std::str::from_utf8(bytes).ok().map(str::to_owned)
        }
        // As OpenSSL reads it: ISO 8859-1.
        Tag::TeletexString => Some(bytes.iter().copied().map(char::from).collect()),
        Tag::BmpString => {
            let (units, rest) = bytes.as_chunks::<2>();
            let units = units.iter().map(|unit| u16::from_be_bytes(*unit));
            char::decode_utf16(units).collect::<Result<_, _>>().ok().filter(|_| rest.is_empty())
        }
        _ => None,
    }
}

/// A value with the escapes of RFC 4514 section 2.4.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let last = text.chars().count().saturating_sub(1);
    for (index, character) in text.chars().enumerate() {
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => out.extend(['\\', character]),
            ' ' if index == 0 || index == last => out.push_str("\\ "),
            '#' if index == 0 => out.push_str("\\#"),
            character if character.is_control() => {
                let mut bytes = [0; 4];
                for byte in character.encode_utf8(&mut bytes).bytes() {
                    // Writing to a string does not fail.
                    let _ = write!(out, "\\{byte:02X}");
                }
            }
            character => out.push(character),
        }
    }
    out
}

/// An object identifier in dotted decimal numbers. None: it is malformed.
fn dotted(identifier: &[u8]) -> Option<String> {
    let mut numbers: Vec<u64> = Vec::new();
    let mut number: u64 = 0;
    for byte in identifier {
        number = number.checked_mul(128)? | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            numbers.push(std::mem::take(&mut number));
        }
    }
    let is_whole = identifier.last().is_some_and(|byte| byte & 0x80 == 0);
    let first = *numbers.first().filter(|_| is_whole)?;
    let (one, two) = (first / 40, first % 40);
    let (one, two) = if one > 2 { (2, first - 80) } else { (one, two) };
    let rest: String = numbers[1..].iter().map(|number| format!(".{number}")).collect();
    Some(format!("{one}.{two}{rest}"))
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The type of a private key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyKind {
    /// RSA, with the size of its modulus in bits.
    Rsa(usize),
    /// Another type, or a curve.
    Named(&'static str),
}

impl KeyKind {
    /// Whether keys of this type can sign.
    pub(super) fn is_supported(self) -> bool {
        match self {
            KeyKind::Rsa(bits) => (2048..=4096).contains(&bits),
            KeyKind::Named(name) => ["P-256", "P-384", "Ed25519"].contains(&name),
        }
    }

    /// The type of a key or curve with this object identifier. None: it is unknown.
    fn named(identifier: &[u8]) -> Option<KeyKind> {
        KEY_KINDS.iter().find(|(known, _)| *known == identifier).map(|(_, name)| KeyKind::Named(name))
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyKind::Rsa(bits) => write!(f, "RSA of {bits} bits"),
            KeyKind::Named(name) => f.write_str(name),
        }
    }
}

const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const ELLIPTIC_CURVE: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];

/// Key types and curves beside RSA.
const KEY_KINDS: &[(&[u8], &str)] = &[
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7], "P-256"),
    (&[0x2b, 0x81, 4, 0, 34], "P-384"),
    (&[0x2b, 0x81, 4, 0, 35], "P-521"),
    (&[0x2b, 0x81, 4, 0, 10], "secp256k1"),
    (&[0x2b, 0x65, 0x70], "Ed25519"),
    (&[0x2b, 0x65, 0x71], "Ed448"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x38, 4, 1], "DSA"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10], "RSA-PSS"),
];

/// The type of a private key in PKCS#8 (RFC 5958). None: it is unknown or malformed.
pub(super) fn kind_of_pkcs8(bytes: &[u8]) -> Option<KeyKind> {
    let mut fields = Fields::of_sequence(bytes)?;
    fields.next(Tag::Integer)?;
    let mut algorithm = Fields::of(fields.next(Tag::Sequence)?)?;
    match algorithm.next(Tag::ObjectIdentifier)? {
        RSA => kind_of_pkcs1(fields.next(Tag::OctetString)?),
        ELLIPTIC_CURVE => KeyKind::named(algorithm.next(Tag::ObjectIdentifier)?),
        kind => KeyKind::named(kind),
    }
}

/// As `kind_of_pkcs8`, for PKCS#1 (RFC 8017 appendix A.1.2).
pub(super) fn kind_of_pkcs1(bytes: &[u8]) -> Option<KeyKind> {
    let mut fields = Fields::of_sequence(bytes)?;
    fields.next(Tag::Integer)?;
    let modulus = fields.next(Tag::Integer)?;
    let first = modulus.iter().position(|byte| *byte != 0)?;
    Some(KeyKind::Rsa((modulus.len() - first) * 8 - modulus[first].leading_zeros() as usize))
}

/// As `kind_of_pkcs8`, for SEC1 (RFC 5915 section 3).
pub(super) fn kind_of_sec1(bytes: &[u8]) -> Option<KeyKind> {
    let mut fields = Fields::of_sequence(bytes)?;
    fields.next(Tag::Integer)?;
    fields.next(Tag::OctetString)?;
    let parameters = fields.next(Tag::ContextSpecific { constructed: true, number: TagNumber(0) })?;
    KeyKind::named(Fields::of(parameters)?.next(Tag::ObjectIdentifier)?)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, DnType, DnValue, KeyPair, SerialNumber};

    use super::*;

    /// A value in DER.
    fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
        assert!(contents.len() < 128);
        [&[tag, contents.len() as u8], contents].concat()
    }

    /// The type of an attribute, the tag of its value, and the value.
    type Parts = (&'static [u8], u8, &'static [u8]);

    /// The contents of a name of these RDNs.
    fn name(sets: &[&[Parts]]) -> Vec<u8> {
        let attribute = |(kind, tag, value): &Parts| tlv(0x30, &[tlv(6, kind), tlv(*tag, value)].concat());
        let set = |set: &&[Parts]| tlv(0x31, &set.iter().flat_map(attribute).collect::<Vec<u8>>());
        sets.iter().flat_map(set).collect()
    }

    #[test]
    fn names_as_strings() {
        const O: &[u8] = &[0x55, 4, 10];
        const UTF8: u8 = 12;
        type Case = (&'static [&'static [Parts]], &'static str, Option<&'static str>);
        let cases: &[Case] = &[
            (&[], "", None),
            (&[&[(COMMON_NAME, UTF8, b"James")]], "CN=James", Some("James")),
            (&[&[(O, 19, b"Inc")], &[(COMMON_NAME, 22, b"a")]], "CN=a,O=Inc", Some("a")),
            // RFC 4514 section 4.
            (&[&[(COMMON_NAME, UTF8, b"Kenya"), (O, UTF8, b"b")]], "CN=Kenya+O=b", Some("Kenya")),
            (
                &[&[(COMMON_NAME, UTF8, b"James \"Jim\" Smith, III")]],
                "CN=James \\\"Jim\\\" Smith\\, III",
                Some("James \"Jim\" Smith, III"),
            ),
            (&[&[(COMMON_NAME, UTF8, b"Before\rAfter")]], "CN=Before\\0DAfter", None),
            (&[&[(COMMON_NAME, UTF8, b"Lu\xc4\x8di\xc4\x87")]], "CN=Lučić", Some("Lučić")),
            (&[&[(&[0x2b, 6, 1, 4, 1, 0x8b, 0x3a, 0], 4, b"Hi")]], "1.3.6.1.4.1.1466.0=#04024869", None),
            (&[&[(COMMON_NAME, UTF8, b" #a+b;<c>= ")]], "CN=\\ #a\\+b\\;\\<c\\>=\\ ", Some(" #a+b;<c>= ")),
            (&[&[(COMMON_NAME, UTF8, b"#")]], "CN=\\#", Some("#")),
            (&[&[(COMMON_NAME, UTF8, b" ")]], "CN=\\ ", Some(" ")),
            (&[&[(COMMON_NAME, UTF8, b"admin\0.example")]], "CN=admin\\00.example", None),
            (&[&[(COMMON_NAME, UTF8, b"first")], &[(COMMON_NAME, UTF8, b"last")]], "CN=last,CN=first", Some("last")),
            // Latin 1, UTF-16, and values that are not text.
            (&[&[(COMMON_NAME, 20, b"\xe9")]], "CN=é", Some("é")),
            (&[&[(COMMON_NAME, 30, b"\0a\0b")]], "CN=ab", Some("ab")),
            (&[&[(COMMON_NAME, 30, b"\0a\0")]], "CN=#1e03006100", None),
            (&[&[(COMMON_NAME, UTF8, b"\xff")]], "CN=#0c01ff", None),
            (&[&[(COMMON_NAME, 2, b"\x05")]], "CN=#020105", None),
        ];
        for (sets, string, common) in cases {
            let bytes = name(sets);
            assert_eq!(name_string(&bytes).as_deref(), Some(*string));
            assert_eq!(common_name(&bytes).as_deref(), *common, "{string}");
        }
        for malformed in [&[0x31][..], &[0x31, 0x80], &[0x30, 0], &[0x31, 2, 0x30, 0], &tlv(0x31, &tlv(0x30, &[6, 0]))]
        {
            assert_eq!((name_string(malformed), common_name(malformed)), (None, None), "{malformed:02x?}");
        }
    }

    #[test]
    fn object_identifiers() {
        for (bytes, text) in [
            (&[0x2a, 0x86, 0x48][..], Some("1.2.840")),
            (&[0x88, 0x37, 3], Some("2.999.3")),
            (&[0x55, 4, 3], Some("2.5.4.3")),
            (&[0], Some("0.0")),
            (&[], None),
            (&[0x2a, 0x86], None),
            (&[0xff; 12], None),
        ] {
            assert_eq!(dotted(bytes).as_deref(), text);
        }
    }

    fn certificate() -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(vec![0x0a, 0xbc]));
        params.not_before = rcgen::date_time_ymd(1999, 12, 31);
        params.not_after = rcgen::date_time_ymd(9999, 12, 31);
        params.distinguished_name.push(DnType::CountryName, DnValue::PrintableString("FR".try_into().unwrap()));
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0])];
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn fields_of_a_certificate() {
        let bytes = certificate();
        let fields = Certificate::read(&bytes).unwrap();
        assert_eq!(hex(fields.serial), "0abc");
        assert_eq!(fields.validity, Validity { not_before_s: 946_598_400, not_after_s: 253_402_214_400 });
        assert_eq!(name_string(fields.subject).as_deref(), Some("C=FR,CN=rcgen self signed cert"));
        assert_eq!(fields.issuer, fields.subject);
    }

    /// Each truncation, and each byte changed to several values: an answer, never a panic.
    #[test]
    fn damaged_certificates_are_harmless() {
        let bytes = certificate();
        let read = |bytes: &[u8]| {
            let Some(fields) = Certificate::read(bytes) else { return };
            name_string(fields.subject);
            common_name(fields.subject);
        };
        for end in 0..bytes.len() {
            assert!(Certificate::read(&bytes[..end]).is_none());
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 0x30, 0x31, 0x7f, 0x80, 0x84, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                read(&damaged);
                RevocationList::read(&damaged);
                kind_of_pkcs8(&damaged);
                kind_of_pkcs1(&damaged);
                kind_of_sec1(&damaged);
            }
        }
    }
}
