//! The frames of the raw contestants: length, kind, number, text.

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Note,
    Echo,
    Count,
}

const HEADER: usize = 9;

/// Appends a frame.
pub(crate) fn append(out: &mut Vec<u8>, kind: FrameKind, number: u32, text: &[u8]) {
    let length = u32::try_from(text.len()).expect("a short one");
    out.reserve(HEADER + text.len());
    out.extend_from_slice(&length.to_le_bytes());
    out.push(kind as u8);
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(text);
}

/// Bytes that came, of which whole frames are cut.
#[derive(Debug)]
pub(crate) struct Incoming {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Incoming {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; 256 << 10],
            start: 0,
            end: 0,
        }
    }

    /// Where the next read may write; never empty.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        let waiting = self.end - self.start;
        if waiting == 0 {
            (self.start, self.end) = (0, 0);
        } else if let Some(wanted) = self.wanted()
            && self.start + wanted > self.bytes.len()
        {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, waiting);
            if wanted > self.bytes.len() {
                self.bytes.resize(wanted, 0);
            }
        }
        &mut self.bytes[self.end..]
    }

    /// So many bytes were read.
    pub(crate) fn filled(&mut self, bytes: usize) {
        self.end += bytes;
    }

    /// How long the first frame is, or at least a header.
    fn wanted(&self) -> Option<usize> {
        let waiting = &self.bytes[self.start..self.end];
        if waiting.is_empty() {
            return None;
        }
        let length = waiting
            .first_chunk()
            .map(|length| u32::from_le_bytes(*length) as usize);
        Some(HEADER + length.unwrap_or(0))
    }

    /// Cuts the first frame, if it is whole.
    pub(crate) fn next(&mut self) -> Option<(FrameKind, u32, String)> {
        let waiting = &self.bytes[self.start..self.end];
        let (header, rest) = waiting.split_first_chunk::<HEADER>()?;
        let [l0, l1, l2, l3, kind, n0, n1, n2, n3] = *header;
        let text = rest.get(..u32::from_le_bytes([l0, l1, l2, l3]) as usize)?;
        let kind = match kind {
            0 => FrameKind::Note,
            1 => FrameKind::Echo,
            _ => FrameKind::Count,
        };
        self.start += HEADER + text.len();
        let text = str::from_utf8(text).expect("it was a text").to_owned();
        Some((kind, u32::from_le_bytes([n0, n1, n2, n3]), text))
    }
}
