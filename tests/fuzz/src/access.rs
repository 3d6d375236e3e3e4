//! Access lines, as a reader of the log sees them.

/// Payload bytes and messages in one direction.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Count {
    /// Payload bytes.
    pub bytes: usize,
    /// Complete messages.
    pub messages: usize,
}

impl Count {
    /// Whether neither number is less than that of `other`.
    pub fn covers(self, other: Count) -> bool {
        self.bytes >= other.bytes && self.messages >= other.messages
    }

    /// The larger value of each number.
    pub fn max(self, other: Count) -> Count {
        Count { bytes: self.bytes.max(other.bytes), messages: self.messages.max(other.messages) }
    }
}

/// What the access line of a connection says.
#[derive(Clone, Debug)]
pub struct AccessLine {
    /// The status of the last reply; None: no reply was sent.
    pub status: Option<u16>,
    /// The close code of a WebSocket; None: there was no WebSocket, or its backend has closed it.
    pub code: Option<u16>,
    /// From the client to the backend.
    pub up: Count,
    /// From the backend to the client.
    pub down: Count,
}

impl AccessLine {
    /// Reads a line of JSON.
    pub fn parse(line: &str) -> AccessLine {
        assert!(line.contains(r#","event":"end","#) && line.ends_with("\"}\n"), "no access line: {line}");
        // In a value each quotation mark is escaped.
        let number = |key: &str| {
            let (_, rest) = line.split_once(&format!(",\"{key}\":"))?;
            let digits = rest.split(',').next().unwrap_or_default();
            Some(digits.parse::<usize>().unwrap_or_else(|_| panic!("{key} is not a number: {line}")))
        };
        let must = |key: &str| number(key).unwrap_or_else(|| panic!("no {key}: {line}"));
        let short = |key: &str| number(key).map(|number| u16::try_from(number).expect("16 bits"));
        AccessLine {
            status: short("status"),
            code: short("code"),
            up: Count { bytes: must("up_bytes"), messages: must("up_messages") },
            down: Count { bytes: must("down_bytes"), messages: must("down_messages") },
        }
    }
}
